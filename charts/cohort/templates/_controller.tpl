{{/* What both containers see. */}}
{{- define "cohort.mounts" -}}
- {name: config, mountPath: /etc/cohort/config, readOnly: true}
- {name: keys, mountPath: /etc/cohort/keys, readOnly: true}
- {name: run, mountPath: /run/cohort}
{{- end -}}

{{/* No probes. A startup probe would hold the proxy back behind a controller that cannot start. A sidecar that is not
ready, or started anew by a liveness probe, takes its pod out of the Service, though the proxy serves well: so a
controller that hangs is for the next holder of the Lease, and for an alert on the age of the proxy's plan. */}}
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
    - --respawn # a container that ends would take the pod, whose proxy serves on, out of the Service
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
  resources: {{- toYaml $controller.resources | nindent 4 }}
  securityContext: {{- include "cohort.containerSecurity" . | nindent 4 }}
  volumeMounts:
    {{- include "cohort.mounts" . | nindent 4 }}
    - {name: token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end -}}
