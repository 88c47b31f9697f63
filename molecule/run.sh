#!/bin/sh
# Run every Molecule scenario on a lab of its own: bare hosts, which the first scenario bootstraps.
#
# A lab of its own, since these tests restart docker and plant settings; it is made in seconds. To work on a scenario
# with hosts that stay: MOLECULE_KEEP_LAB=1 sh molecule/run.sh default
set -eu

cd "$(dirname "$0")/.."
lab=${MOLECULE_LAB:-molecule}
hosts=2
folder=${ONPREM_LLM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/onprem-llm}/molecule
ONPREM_LLM_TEST_INVENTORY=$folder/inventory.ini
MOLECULE_EXPECTED_HOSTS=$hosts
export ONPREM_LLM_TEST_INVENTORY MOLECULE_EXPECTED_HOSTS

down() {
    [ -n "${MOLECULE_KEEP_LAB:-}" ] || onprem-llm lab down --name "$lab"
}
trap down EXIT
trap 'exit 130' INT TERM

mkdir -p "$folder"
# A run that was killed leaves its hosts, and they are bare no more.
down
onprem-llm lab up --name "$lab" --hosts "$hosts" --gpus host1=2xH100-80GB --inventory "$ONPREM_LLM_TEST_INVENTORY"
if [ $# -eq 0 ]; then
    # `default` first: it installs the engine that the others run on.
    # shellcheck disable=SC2046  # names of folders, without spaces
    set -- default $(find molecule -mindepth 2 -name molecule.yml -not -path 'molecule/default/*' -printf '%h\n' | sort | cut -d/ -f2)
fi
for scenario; do
    # Molecule remembers by this folder's path what it has prepared, and would skip that on the next lab's new hosts.
    molecule reset --scenario-name "$scenario"
    molecule test --scenario-name "$scenario" --destroy never
done
