{{/* The file that every process of the control plane reads (mesh/config.py). */}}
{{- define "autotls.config" -}}
{{- include "autotls.validate" . -}}
{{- $proxy := omit .Values.proxy "skipInboundPorts" "skipOutboundPorts" "opaquePorts" -}}
{{- $_ := set $proxy "image" (include "autotls.image" (dict "image" .Values.image.proxy "root" $)) -}}
{{- $_ := set $proxy "imagePullPolicy" .Values.image.pullPolicy -}}
{{- /* `--set proxy.opaquePorts={25,587}` makes numbers of what are texts in the file. */ -}}
{{- $_ := set $proxy "skipInboundPorts" (toStrings .Values.proxy.skipInboundPorts) -}}
{{- $_ := set $proxy "skipOutboundPorts" (toStrings .Values.proxy.skipOutboundPorts) -}}
{{- $_ := set $proxy "opaquePorts" (toStrings .Values.proxy.opaquePorts) -}}
trustDomain: {{ .Values.trustDomain | quote }}
clusterDomain: {{ .Values.clusterDomain | quote }}
controlPlaneNamespace: {{ .Release.Namespace | quote }}
mode: {{ .Values.mode }}
podSecurityDefault: {{ .Values.podSecurityDefault }}
excludedNamespaces: {{ .Values.excludedNamespaces | uniq | sortAlpha | toJson }}
prometheusUrl: {{ .Values.prometheus.url | quote }}
proxy:
  {{- toYaml $proxy | nindent 2 }}
identity:
  {{- toYaml .Values.identity | nindent 2 }}
lease:
  {{- toYaml .Values.lease | nindent 2 }}
{{- end }}
