# shellcheck shell=sh
# For /etc/profile.d: where orchestrator-client finds the daemons. Name all of them, separated by blanks; the client
# looks for the leader. One URL is enough where a proxy stands before them.
export ORCHESTRATOR_API="http://orchestrator-1:3000 http://orchestrator-2:3000 http://orchestrator-3:3000"

# With "AuthenticationMethod": "basic" or "multi":
# export ORCHESTRATOR_AUTH_USER="operator"
# export ORCHESTRATOR_AUTH_PASSWORD="..."
