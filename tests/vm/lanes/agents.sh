# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Clients of a lane: processes of tests/lib/client_agent.c, each under a uid of its own, without a capability.
#
#   agent NAME UID [CGROUP]  starts one; CGROUP is a folder
#   ask NAME COMMAND...      its answer is in $answer
#   expect WHAT NAME ANSWER COMMAND...   the answer must begin with ANSWER
#   insist WHAT NAME ANSWER COMMAND...   the same, for 30 s ($patience): while something ends that ends by itself
#   agent_pid NAME           agent_kill NAME (SIGKILL, and waits)      agent_end NAME

declare -A agent_in agent_out agent_pids
answer=

agent() {
  local name=$1 uid=$2 cgroup=${3:-} in out
  rm -f "/tmp/agent-$name".{in,out}
  mkfifo "/tmp/agent-$name".{in,out}
  # shellcheck disable=SC2016 # the new shell's
  sh -c 'if [ -n "$0" ]; then echo $$ >"$0/cgroup.procs"; fi; exec "$@"' "$cgroup" \
    setpriv --reuid "$uid" --regid "$uid" --clear-groups --inh-caps=-all --ambient-caps=-all --bounding-set=-all \
    "$LAB_BUILD/tests/client_agent" <"/tmp/agent-$name.in" >"/tmp/agent-$name.out" 2>"/tmp/agent-$name.err" &
  agent_pids[$name]=$!
  exec {in}>"/tmp/agent-$name.in" {out}<"/tmp/agent-$name.out"
  agent_in[$name]=$in agent_out[$name]=$out
}

ask() {
  local name=$1
  shift
  answer="(it has ended)"
  # Writing to nobody would end the lane.
  kill -0 "${agent_pids[$name]}" 2>/dev/null || return 0
  echo "$*" >&"${agent_in[$name]}"
  answer=
  IFS= read -r -t 60 answer <&"${agent_out[$name]}" || answer="(no answer)"
}

expect() {
  local what=$1 name=$2 wanted=$3
  shift 3
  ask "$name" "$@"
  case $answer in
    "$wanted"*) ok "$what" ;;
    *) fail "$what ($name, asked '$*', said '$answer' instead of '$wanted')" ;;
  esac
}

insist() {
  local until=$((SECONDS + ${patience:-30})) name=$2 wanted=$3
  until
    ask "$name" "${@:4}"
    [[ $answer == "$wanted"* ]] || [ "$SECONDS" -ge "$until" ]
  do
    sleep 0.2
  done
  case $answer in
    "$wanted"*) ok "$1" ;;
    *) fail "$1 ($name, asked '${*:4}', said '$answer' instead of '$wanted')" ;;
  esac
}

agent_pid() { echo "${agent_pids[$1]}"; }

agent_kill() {
  kill -9 "${agent_pids[$1]}"
  agent_reap "$1"
}

# Asked to, not by closing its input: agents that were started later have a copy of that.
agent_end() {
  echo exit >&"${agent_in[$1]}"
  agent_reap "$1"
}

agent_reap() {
  wait "${agent_pids[$1]}" 2>/dev/null || true
  eval "exec ${agent_in[$1]}>&- ${agent_out[$1]}<&-"
}
