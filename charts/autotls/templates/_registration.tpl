{{/*
The `webhooks` of one registration, as YAML. The context: root, mode.

A pod opts in by its own label, or by its namespace's if it has no valid one. It has a mode by its own label, or by
its namespace's, or by the chart's default. Selectors can only be and-ed within an entry, so each of the four ways
to say both is an entry, and the two registrations have the four of one mode each. No pod matches two of the eight.
A label with a value that means nothing counts as absent, as in webhook/decision.py and mesh/settings.py.
*/}}
{{- define "autotls.webhooks" -}}
{{- $root := .root -}}
{{- $mode := .mode -}}
{{- $other := ternary "strict" "optional" (eq $mode "optional") -}}
{{- range $inject := list "pod" "namespace" }}
{{- range $tls := list "pod" "namespace" }}
- name: {{ printf "inject-by-%s.mode-by-%s.%s.autotls.io" $inject $tls $mode }}
  admissionReviewVersions: [v1]
  clientConfig:
    service:
      name: autotls-webhook
      namespace: {{ $root.Release.Namespace }}
      # The strict path tells the webhook to refuse when it cannot even read the review (webhook/app.py).
      path: {{ ternary "/mutate" "/mutate/strict" (eq $mode "optional") }}
      port: 443
  failurePolicy: {{ ternary "Ignore" "Fail" (eq $mode "optional") }}
  matchPolicy: Equivalent
  reinvocationPolicy: IfNeeded
  sideEffects: None
  timeoutSeconds: {{ $root.Values.webhook.timeoutSeconds }}
  rules:
    - apiGroups: [""]
      apiVersions: [v1]
      operations: [CREATE]
      resources: [pods]
      scope: Namespaced
  namespaceSelector:
    matchExpressions:
      - key: kubernetes.io/metadata.name
        operator: NotIn
        values: {{ include "autotls.excludedNamespaces" $root }}
      {{- if eq $inject "namespace" }}
      - key: autotls.io/inject
        operator: In
        values: [enabled]
      {{- end }}
      {{- if eq $tls "namespace" }}
      {{- /* The default mode is also that of namespaces without a valid label, so it is "not the other". */}}
      - key: autotls.io/tls
        operator: {{ ternary "NotIn" "In" (eq $mode $root.Values.mode) }}
        values: [{{ ternary $other $mode (eq $mode $root.Values.mode) }}]
      {{- end }}
  objectSelector:
    matchExpressions:
      - key: autotls.io/inject
      {{- if eq $inject "pod" }}
        operator: In
        values: [enabled]
      {{- else }}
        operator: NotIn
        values: [enabled, disabled]
      {{- end }}
      - key: autotls.io/tls
      {{- if eq $tls "pod" }}
        operator: In
        values: [{{ $mode }}]
      {{- else }}
        operator: NotIn
        values: [optional, strict]
      {{- end }}
  # Pods that would be skipped never cost a call, nor are they refused when a strict call fails.
  matchConditions:
    - name: not-host-network
      expression: "!has(object.spec.hostNetwork) || !object.spec.hostNetwork"
    - name: not-injected
      expression: "!has(object.spec.initContainers) || !object.spec.initContainers.exists(c, c.name == 'autotls-proxy')"
    - name: not-mirror-pod
      expression: "!has(object.metadata.annotations) || !('kubernetes.io/config.mirror' in object.metadata.annotations)"
    - name: not-windows
      expression: >-
        has(object.spec.os) ? object.spec.os.name != 'windows' : !has(object.spec.nodeSelector)
        || !('kubernetes.io/os' in object.spec.nodeSelector)
        || object.spec.nodeSelector['kubernetes.io/os'].lowerAscii() != 'windows'
{{- end }}
{{- end }}
{{- end }}

{{/* The strict registration as JSON, without caBundle: the CA makes the object once it has one. */}}
{{- define "autotls.strictRegistration" -}}
{{- $labels := dict
  "app.kubernetes.io/name" "autotls"
  "app.kubernetes.io/managed-by" "autotls"
  "autotls.io/control-plane" .Release.Namespace -}}
{{- dict
  "apiVersion" "admissionregistration.k8s.io/v1"
  "kind" "MutatingWebhookConfiguration"
  "metadata" (dict "name" "autotls-strict" "labels" (merge $labels .Values.extraLabels))
  "webhooks" (include "autotls.webhooks" (dict "root" . "mode" "strict") | fromYamlArray)
  | toPrettyJson -}}
{{- end }}
