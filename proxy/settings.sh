# shellcheck shell=bash disable=SC2034 # the settings are used by who reads this file
# The settings of everything that runs in the pod: read from the environment, checked once, kept in lower-case names.
#
# A value that is not allowed: optional mode says so in one line and goes on with the default; strict mode refuses to
# start (exit 64), because a setting nobody asked for could mean less protection than was asked for. The webhook checks
# the same values at admission, so either is rare.

# Filled by read_settings.
mode='' inbound='' redirect='' log_level='' trust_domain='' pod_name='' pod_namespace='' service_account='' node_name=''
wait_seconds='' drain_seconds='' skip_inbound='' skip_outbound='' control_plane='' discovery_address='' inbound_ports=''

# log LEVEL EVENT FIELD=VALUE...: one line per fact on stderr. Values with spaces are quoted by the caller.
log() {
  local level=$1 event=$2
  shift 2
  printf '%(%Y-%m-%dT%H:%M:%S%z)T level=%s process=%s event=%s %s\n' -1 "$level" "${0##*/}" "$event" "$*" >&2
}

# setting VARIABLE ENVIRONMENT-NAME DEFAULT PATTERN ALLOWED: checks one value against an extended regular expression.
setting() {
  local -n target=$1
  local name=$2 default=$3 pattern=$4 allowed=$5
  local value=${!name:-$default}
  # The pattern is anchored here; [[ =~ ]] treats a newline as an ordinary character, so it cannot smuggle a second line.
  if [[ $value =~ ^($pattern)$ || -z $value && -z $default ]]; then
    target=$value
    return
  fi
  refuse_or_default "$name" "$value" "$default" "$allowed"
  target=$default
}

refuse_or_default() {
  local name=$1 default=$3 allowed=$4 value
  printf -v value '%q' "${2:0:80}"
  if [[ ${mode:-optional} == strict ]]; then
    log error setting_refused "name=$name value=$value allowed='$allowed' hint='correct the annotation on the pod or its namespace'"
    exit 64
  fi
  log warning setting_ignored "name=$name value=$value allowed='$allowed' used='$default'"
}

# number_setting: like setting, for whole numbers from 0 to MAX.
number_setting() {
  local -n number=$1
  setting "$1" "$2" "$3" '0|[1-9][0-9]{0,5}' "0 to $4 seconds"
  if ((number > $4)); then
    refuse_or_default "$2" "$number" "$3" "0 to $4 seconds"
    number=$3
  fi
}

# ports_setting: "80,443,8000-8100", every number from 1 to 65535, every range upwards.
ports_setting() {
  local -n ports=$1
  local allowed='ports and ranges as in 80,443,8000-8100' entry low high
  setting "$1" "$2" '' '[0-9-]+(,[0-9-]+)*' "$allowed"
  for entry in ${ports//,/ }; do
    low=${entry%%-*} high=${entry#*-}
    if ! [[ $entry =~ ^[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?$ ]] || ((high > 65535 || low > high)); then
      refuse_or_default "$2" "$ports" '' "$allowed"
      ports=
      return
    fi
  done
}

# read_settings: all of them. `mode` comes first because it decides what a bad value means.
read_settings() {
  local name='[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?' name_text='a Kubernetes object name'
  local wait_max=300
  setting mode AUTOTLS_MODE optional 'optional|strict' 'optional or strict'
  setting inbound AUTOTLS_INBOUND direct 'direct|observed' 'direct or observed'
  setting redirect AUTOTLS_REDIRECT on 'on|off' 'on or off'
  setting log_level AUTOTLS_LOG_LEVEL warning 'trace|debug|info|warn|warning|error|critical|off' 'trace, debug, info, warning, error, critical or off'
  setting trust_domain AUTOTLS_TRUST_DOMAIN cluster.local '[a-z0-9._-]{1,255}' 'a SPIFFE trust domain: a-z, 0-9, dot, dash, underscore'
  setting pod_name AUTOTLS_POD_NAME unknown "$name" "$name_text"
  setting pod_namespace AUTOTLS_POD_NAMESPACE unknown "$name" "$name_text"
  setting service_account AUTOTLS_SERVICE_ACCOUNT default "$name" "$name_text"
  setting node_name AUTOTLS_NODE_NAME unknown "$name" "$name_text"
  setting control_plane AUTOTLS_CONTROL_PLANE_NAMESPACE autotls '[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?' 'a namespace'
  setting discovery_address AUTOTLS_DISCOVERY_ADDRESS "autotls-discovery.$control_plane.svc.cluster.local:15110" \
    '([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\]):[1-9][0-9]{0,4}' 'host:port, IPv6 in brackets'
  # Optional mode may hold the app's start for two seconds and no longer.
  [[ $mode == optional ]] && wait_max=2
  number_setting wait_seconds AUTOTLS_WAIT_SECONDS 2 "$wait_max"
  number_setting drain_seconds AUTOTLS_DRAIN_SECONDS 5 3600
  ports_setting skip_inbound AUTOTLS_SKIP_INBOUND_PORTS
  ports_setting skip_outbound AUTOTLS_SKIP_OUTBOUND_PORTS
  setting inbound_ports AUTOTLS_PORTS '' '[1-9][0-9]{0,4}(,[1-9][0-9]{0,4})*' 'ports as in 80,443'
}

# has_ipv6_loopback: REDIRECT sends the app's IPv6 connections to ::1; where that address is missing (IPv6 switched off
# in the pod) neither the listeners nor the rules for it can work, so both are left out. One test decides for both.
has_ipv6_loopback() {
  grep -qs '^00000000000000000000000000000001 ' /proc/net/if_inet6
}
