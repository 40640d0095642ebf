{{/*
Pod templates of the webhook, the CA and discovery differ in name, module, resources and mounts; all the rest is here, once.
The context: root, component, module, resources, ports, mounts, volumes, checksums (YAML texts but for root).
*/}}
{{- define "autotls.podTemplate" -}}
{{- $values := .root.Values -}}
metadata:
  labels:
    {{- include "autotls.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  annotations:
    {{- .checksums | nindent 4 }}
    {{- if $values.prometheus.scrapeAnnotations }}
    prometheus.io/scrape: "true"
    prometheus.io/port: "9090"
    prometheus.io/path: /metrics
    {{- end }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: autotls-{{ .component }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  terminationGracePeriodSeconds: 30
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  affinity:
    {{- if $values.affinity }}
    {{- toYaml $values.affinity | nindent 4 }}
    {{- else }}
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels:
                {{- include "autotls.selector" .component | nindent 16 }}
    {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: topology.kubernetes.io/zone
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "autotls.selector" .component | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: {{ .component }}
      image: {{ include "autotls.image" (dict "image" $values.image.controlPlane "root" .root) }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      command: [python3, -m, {{ .module }}]
      env:
        - name: AUTOTLS_POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        - name: AUTOTLS_POD_NAMESPACE
          valueFrom:
            fieldRef:
              fieldPath: metadata.namespace
        - name: AUTOTLS_CONFIG
          value: /etc/autotls/config.yaml
      ports:
        {{- .ports | nindent 8 }}
        - name: health
          containerPort: 9090
      # The start may be slow on a busy node (imports: about a second of CPU), so only the startup probe is patient.
      startupProbe:
        httpGet:
          path: /healthz
          port: health
        periodSeconds: 1
        failureThreshold: 60
      livenessProbe:
        httpGet:
          path: /healthz
          port: health
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      readinessProbe:
        httpGet:
          path: /readyz
          port: health
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 2
      resources:
        {{- toYaml .resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        runAsNonRoot: true
        capabilities:
          drop: [ALL]
      volumeMounts:
        - name: config
          mountPath: /etc/autotls
          readOnly: true
        - name: tmp
          mountPath: /tmp
        {{- with .mounts }}
        {{- . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: autotls-config
    - name: tmp
      emptyDir:
        sizeLimit: 16Mi
    {{- with .volumes }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end }}
