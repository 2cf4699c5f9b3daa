# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The packaged service in a lane, under systemd: how it is started, killed and asked. After lib.sh and agents.sh.

sockets=/run/iommud/client
dev=${edus[0]} dev2=${edus[1]}

# Sockets and service; without them a lane ends here.
service_begin() {
  local unit
  echo "allow = 1234:11e8" >>/etc/iommud/bind.conf
  for unit in iommud-holder.socket iommud-bind.socket iommud-grpc.socket iommud-session.socket iommud-operator.socket; do
    check "$unit starts" systemctl start "$unit"
  done
  check "iommud.service starts and says it is ready" systemctl start iommud.service
  [ "$lab_failed" = 0 ] || finish
}

broker_pid() { systemctl show -P MainPID iommud.service; }

# service_kill SESSIONS: SIGKILL for the broker; the next one takes over so many sessions.
service_kill() {
  local killed
  killed=$(broker_pid)
  kill -9 "$killed"
  check "a new broker takes over, with all sessions" eventually 60 service_has_recovered "$killed" "$1"
}
service_has_recovered() { # KILLED SESSIONS
  iommuctl --json status | jq -e --argjson pid "$1" --argjson n "$2" '.state == "serving" and .pid != $pid and .sessions == $n'
}

status_of() { iommuctl --json device list | jq -r --arg name "$1" '.devices[] | select(.name == $name).state'; }
state_is() { [ "$(status_of "$1")" = "$2" ]; }
sessions() { iommuctl --json status | jq .sessions; }
sessions_are() { [ "$(sessions)" = "$1" ]; }
# The holder of that client; of the only session.
holder_of() { iommuctl --json status | jq --argjson pid "$1" '.session_list[] | select(.pid == $pid).holder_pid'; }
only_holder() { basename "$(dirname "$(grep -lx iommud-holder /proc/[0-9]*/comm)")"; }
ledger_agrees() { iommuctl ledger check; }
no_balance() { iommuctl --json tenant list | jq -e '[.tenants[].quotas[].used] | add == 0'; }

# The end of every lane.
service_end() {
  check "no session is left" eventually 30 sessions_are 0
  check "no balance is left" no_balance
  check "ledger and holders agree at the end" ledger_agrees
  check "the service stops cleanly" systemctl stop iommud.service
  check "no unit has failed" test -z "$(systemctl list-units --failed --no-legend --plain)"
  refuses "no holder is left" grep -qx iommud-holder /proc/[0-9]*/comm
}

# What the memory of an agent holds, looked at by root through a descriptor that outlives the agent.
memfd_of() {
  local fd
  for fd in "/proc/$1/fd"/*; do
    case $(readlink "$fd") in /memfd:iommud*) echo "$fd" && return ;; esac
  done
  return 1
}
sum() { sha256sum <"/proc/self/fd/$1"; }
