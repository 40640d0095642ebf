{{/* Labels of every object of the chart. */}}
{{- define "autotls.labels" -}}
app.kubernetes.io/name: autotls
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- with .Values.extraLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Without the release's name: a Deployment's selector is immutable, and the names here are fixed anyway. */}}
{{- define "autotls.selector" -}}
app.kubernetes.io/name: autotls
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/* repository@digest or repository:tag, the tag being the chart's appVersion by default. */}}
{{- define "autotls.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Namespaces of which no pod is ever sent to the webhook, as a JSON list. */}}
{{- define "autotls.excludedNamespaces" -}}
{{- concat (list "kube-system" "kube-node-lease" .Release.Namespace) .Values.excludedNamespaces | uniq | sortAlpha | toJson -}}
{{- end }}

{{/* Whether the API server knows ValidatingAdmissionPolicy v1 (GA in 1.30). */}}
{{- define "autotls.admissionPolicy" -}}
{{- if and .Values.admissionPolicy.enabled (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) -}}
true
{{- end -}}
{{- end }}

{{/* A duration such as 1h30m or 365d in milliseconds; the schema has checked its form. */}}
{{- define "autotls.milliseconds" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h|d)" . -1 -}}
{{- $number := regexFind "[0-9]+" . -}}
{{- $sum = add $sum (mul (atoi $number) (index $units (trimPrefix $number .))) -}}
{{- end -}}
{{- $sum -}}
{{- end }}

{{/* Refuses what a schema cannot: the processes would find it out only when they start. */}}
{{- define "autotls.validate" -}}
{{- $growing := list
  (list "identity.leafLifetime" .Values.identity.leafLifetime "identity.issuerLifetime" .Values.identity.issuerLifetime)
  (list "identity.issuerLifetime" .Values.identity.issuerLifetime "identity.rootLifetime" .Values.identity.rootLifetime)
  (list "lease.retryPeriod" .Values.lease.retryPeriod "lease.renewDeadline" .Values.lease.renewDeadline)
  (list "lease.renewDeadline" .Values.lease.renewDeadline "lease.duration" .Values.lease.duration) -}}
{{- range $growing -}}
{{- if ge (include "autotls.milliseconds" (index . 1) | atoi) (include "autotls.milliseconds" (index . 3) | atoi) -}}
{{- fail (printf "%s (%s) must be shorter than %s (%s)" (index . 0) (index . 1) (index . 2) (index . 3)) -}}
{{- end -}}
{{- end -}}
{{- end }}
