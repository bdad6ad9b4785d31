{{- define "cohort.proxySettings" -}}
{{- $proxy := .Values.proxy -}}
apiVersion: cohort.dev/v1alpha1
kind: ProxySettings
listeners:
  - {address: ":8080", proxyProtocol: {{ $proxy.proxyProtocol }}}
  {{- with $proxy.tlsSecrets }}
  - address: ":8443"
    proxyProtocol: {{ $proxy.proxyProtocol }}
    tls:
      certificates:
        {{- range . }}
        - {certFile: {{ printf "/etc/cohort/tls/%s/tls.crt" . }}, keyFile: {{ printf "/etc/cohort/tls/%s/tls.key" . }}}
        {{- end }}
  {{- end }}
workers: {{ $proxy.workers }}
trustedPeers: {{ $proxy.trustedPeers | toJson }}
initialPlan: /etc/cohort/plan/plan.yaml
initialPlanWait: {{ $proxy.initialPlanWait }}
stateDir: /var/lib/cohort
keysDir: /etc/cohort/keys
admin: {listen: "unix:/run/cohort/admin.sock"}
control:
  listen: ":8083"
  tokenFile: /etc/cohort/keys/control
  tls: {certFile: /etc/cohort/keys/tls.crt, keyFile: /etc/cohort/keys/tls.key}
metrics: {listen: ":8082"}
log: {{ $proxy.log | toJson }}
endpoints: {{ $proxy.endpoints | toJson }}
limits: {{ $proxy.limits | toJson }}
timeouts: {{ merge (dict "lameDuck" (printf "%ds" (int $proxy.lameDuckSeconds)) "drain" (printf "%ds" (int $proxy.drainSeconds))) $proxy.timeouts | toJson }}
resolver: {{ $proxy.resolver | toJson }}
{{- end -}}

{{- define "cohort.controllerSettings" -}}
apiVersion: cohort.dev/v1alpha1
kind: ControllerSettings
keysDir: /etc/cohort/keys
proxies: [{address: "unix:/run/cohort/admin.sock"}]
kube:
  namespace: {{ .Release.Namespace }}
  rollout: {{ include "cohort.rolloutName" . }}
  leaseDuration: {{ .Values.controller.leaseDuration }}
  controlService: {{ include "cohort.fullname" . }}-control
  metrics: {listen: ":8090"}
{{- end -}}

{{/* Empty where the values do not tell a stable Service with the number of its port. */}}
{{- define "cohort.initialPlan" -}}
{{- $stable := .Values.rollout.stable -}}
{{- $service := default (dict) $stable.service -}}
{{- $port := .Values.proxy.initialPlanPort | int -}}
{{- if and (not $port) (not (kindIs "string" $service.port)) }}{{ $port = int $service.port }}{{ end -}}
{{- if and $service.name $port -}}
apiVersion: cohort.dev/v1alpha1
kind: Plan
rollout:
  namespace: {{ .Release.Namespace }}
  name: {{ include "cohort.rolloutName" . }}
  uid: initial
generation: 1
salt: {{ repeat 64 "0" | quote }}
arms:
  - name: stable
    revision: initial
    weightBp: 10000
    dns: {host: {{ printf "%s.%s.svc.%s" $service.name .Release.Namespace .Values.clusterDomain }}, port: {{ $port }}}
    {{- with $stable.healthCheck }}
    healthCheck: {{ . | toJson }}
    {{- end }}
    {{- with $stable.tls }}
    tls: {{ . | toJson }}
    {{- end }}
users: {{ default (list (dict "mint" (dict))) .Values.rollout.users | toJson }}
{{- with .Values.rollout.routes }}
routes: {{ . | toJson }}
{{- end }}
explain: {{ .Values.rollout.explain }}
onArmDown: {{ .Values.rollout.onArmDown }}
{{- end -}}
{{- end -}}

{{/* A CanaryRollout's spec: the block `rollout` without what is the chart's own, and without what is empty. */}}
{{- define "cohort.rolloutSpec" -}}
{{- $rollout := .Values.rollout -}}
{{- $spec := dict -}}
{{- range $name, $value := omit $rollout "create" "name" "annotations" "analysisTemplates" -}}
{{- if not (empty $value) }}{{- $_ := set $spec $name $value }}{{- end -}}
{{- end -}}
{{- if not $rollout.strategy -}}
{{- $_ := set $spec "strategy" (include "cohort.defaultStrategy" . | fromYaml) -}}
{{- end -}}
{{- toYaml $spec -}}
{{- end -}}

{{- define "cohort.defaultStrategy" -}}
canary:
  analysis: {templates: [{templateName: {{ include "cohort.successRate" . }}}]}
  steps:
    - setWeight: 5
    - pause: {duration: 10m}
    - setWeight: 25
    - pause: {duration: 10m}
    - setWeight: 50
    - pause: {duration: 10m}
{{- end -}}
