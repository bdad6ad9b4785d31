{{/* What both containers see. */}}
{{- define "cohort.mounts" -}}
- {name: config, mountPath: /etc/cohort/config, readOnly: true}
- {name: keys, mountPath: /etc/cohort/keys, readOnly: true}
- {name: run, mountPath: /run/cohort}
{{- end -}}

{{/* No startup probe: it would hold the proxy back behind a controller that cannot start. */}}
{{- define "cohort.controller" -}}
{{- $controller := .Values.controller -}}
- name: controller
  image: {{ include "cohort.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  {{- if $controller.nativeSidecar }}
  restartPolicy: Always
  {{- end }}
  args:
    - controller
    - --kube
    - --namespace={{ .Release.Namespace }}
    - --rollout={{ include "cohort.rolloutName" . }}
    - --settings=/etc/cohort/config/controller.yaml
    {{- range $controller.extraArgs }}
    - {{ . | quote }}
    {{- end }}
  env:
    - {name: POD_NAME, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}}
    - {name: POD_NAMESPACE, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}}
    - {name: POD_UID, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.uid}}}
    - {name: POD_IP, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: status.podIP}}}
    {{- with $controller.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - {name: ctl-metrics, containerPort: 8090}
  # No readiness: a pod that serves stays in its Service whatever its controller does.
  livenessProbe:
    httpGet: {path: /healthz, port: 8090}
    initialDelaySeconds: 30
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  resources: {{- toYaml $controller.resources | nindent 4 }}
  securityContext: {{- include "cohort.containerSecurity" . | nindent 4 }}
  volumeMounts:
    {{- include "cohort.mounts" . | nindent 4 }}
    - {name: token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end -}}
