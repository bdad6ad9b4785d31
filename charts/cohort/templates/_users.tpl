{{/* A container of synthetic users up to its arguments, which go on. Takes a list: the root, how many users. */}}
{{- define "cohort.users" -}}
{{- $root := index . 0 -}}
image: {{ include "cohort.image" $root }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext: {{- include "cohort.containerSecurity" $root | nindent 2 }}
volumeMounts:
  - {name: key, mountPath: /etc/cohort/keys, readOnly: true}
args:
  - loadtest
  - --target=http://{{ include "cohort.fullname" $root }}.{{ $root.Release.Namespace }}.svc.{{ $root.Values.clusterDomain }}:{{ $root.Values.proxy.service.port }}
  - --users={{ index . 1 }}
  - --synthetic-key=/etc/cohort/keys/synthetic
  - --rollout={{ $root.Release.Namespace }}/{{ include "cohort.rolloutName" $root }}
{{- end -}}

{{/* The one key that the load generator needs, no other. */}}
{{- define "cohort.syntheticKey" -}}
- name: key
  secret: {secretName: {{ include "cohort.keysSecret" . }}, defaultMode: 288, items: [{key: synthetic, path: synthetic}]}
{{- end -}}
