{{/* The labels that select the pods of a service: takes (list root name). */}}
{{- define "ionbeam.selector" -}}
app.kubernetes.io/name: ionbeam
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "ionbeam.secret" -}}
{{- if .Values.secret.existing -}}
{{ .Values.secret.existing }}
{{- else if .Values.secret.values -}}
{{ .Release.Name }}-secret
{{- else -}}
{{ fail "name a secret that has DAGSTER_POSTGRES_URL (secret.existing), or give its values (secret.values)" }}
{{- end -}}
{{- end }}

{{/* A probe with its times: takes (dict probe times). */}}
{{- define "ionbeam.probe" -}}
{{ toYaml .probe }}
{{ toYaml .times }}
{{- end }}

{{/*
The pods of one service. Takes a dict: root, name, command, resources, live; and, where it has them, replicas, port, ready,
environment, strategy, grace.
*/}}
{{- define "ionbeam.deployment" -}}
{{- $root := .root -}}
{{- $probes := $root.Values.probes -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $root.Release.Name }}-{{ .name }}
  labels:
    {{- include "ionbeam.selector" (list $root .name) | nindent 4 }}
spec:
  replicas: {{ .replicas | default 1 }}
  strategy:
    type: {{ .strategy | default "RollingUpdate" }}
  selector:
    matchLabels:
      {{- include "ionbeam.selector" (list $root .name) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "ionbeam.selector" (list $root .name) | nindent 8 }}
      annotations: # a changed configuration starts the pods anew
        checksum/config: {{ include (print $root.Template.BasePath "/configuration.yaml") $root | sha256sum }}
    spec:
      terminationGracePeriodSeconds: {{ .grace | default 60 }}
      {{- with $root.Values.image.pullSecrets }}
      imagePullSecrets: {{ toYaml . | nindent 8 }}
      {{- end }}
      automountServiceAccountToken: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        fsGroup: 10001
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: {{ .name }}
          image: "{{ $root.Values.image.repository }}:{{ $root.Values.image.tag }}"
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          command: {{ toJson .command }}
          workingDir: /data
          env:
            - {name: IONBEAM_CONFIG_PATH, value: /etc/ionbeam/config.yaml}
            - {name: DAGSTER_HOME, value: /dagster}
            {{- range $name, $value := .environment }}
            - {name: {{ $name }}, value: {{ $value | quote }}}
            {{- end }}
          envFrom:
            - secretRef: {name: {{ include "ionbeam.secret" $root }}}
          {{- with .port }}
          ports:
            - {name: {{ $.name }}, containerPort: {{ . }}}
          {{- end }}
          startupProbe:
            {{- include "ionbeam.probe" (dict "probe" .live "times" $probes.startup) | nindent 12 }}
          livenessProbe:
            {{- include "ionbeam.probe" (dict "probe" .live "times" $probes.liveness) | nindent 12 }}
          {{- with .ready }}
          readinessProbe:
            {{- include "ionbeam.probe" (dict "probe" . "times" $probes.readiness) | nindent 12 }}
          {{- end }}
          resources: {{ toJson .resources }}
          securityContext:
            allowPrivilegeEscalation: false
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: configuration, mountPath: /etc/ionbeam/config.yaml, subPath: config.yaml, readOnly: true}
            - {name: configuration, mountPath: /dagster/dagster.yaml, subPath: dagster.yaml, readOnly: true}
            - {name: configuration, mountPath: /dagster/workspace.yaml, subPath: workspace.yaml, readOnly: true}
            - {name: data, mountPath: /data}
      volumes:
        - name: configuration
          configMap: {name: {{ $root.Release.Name }}-configuration}
        - name: data
          persistentVolumeClaim:
            claimName: {{ $root.Values.storage.existingClaim | default (print $root.Release.Name "-data") }}
{{- end }}

{{/* Where the pods of a service are reached: takes a dict with root, name and port. */}}
{{- define "ionbeam.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .root.Release.Name }}-{{ .name }}
  labels:
    {{- include "ionbeam.selector" (list .root .name) | nindent 4 }}
spec:
  selector:
    {{- include "ionbeam.selector" (list .root .name) | nindent 4 }}
  ports:
    - {name: {{ .name }}, port: {{ .port }}, targetPort: {{ .name }}}
{{- end }}
