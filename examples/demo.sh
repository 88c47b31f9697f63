#!/bin/sh
# The main job, for real: two rehearsal hosts, the two commands, an answer. `make demo` runs this.
set -eu
cd "$(dirname "$0")/.."
cache=${ONPREM_LLM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/onprem-llm}
work=$cache/demo
began=$(date +%s)
step() { printf '\n== %s (%s s so far)\n' "$1" "$(($(date +%s) - began))"; }

step "Images and the tiny model"
sh images/build.sh
sh images/build.sh tiny-model Tiny "$work/models/tiny"

step "Two rehearsal hosts with two simulated H100 each"
onprem-llm lab up --name demo --hosts 2 --gpus 2xH100-80GB --inventory "$work/inventory.ini"
mkdir -p "$work/group_vars"
sed "s|@IMAGES@|$cache/images|" examples/demo-site.yml >"$work/group_vars/all.yml"
cp examples/tiny.yaml "$work/model.yaml"

step "onprem-llm bootstrap inventory.ini"
cd "$work"
onprem-llm bootstrap inventory.ini --yes

step "onprem-llm deploy model.yaml"
onprem-llm deploy model.yaml --yes

step "onprem-llm chat"
question="What is the highest mountain?"
printf '> %s\n' "$question"
onprem-llm chat "$question"
onprem-llm status

step "Done"
cat <<END
The hosts are up until: make demo-down
Try:  cd $work && onprem-llm chat "世界上最高的山峰是哪座山？"
END
