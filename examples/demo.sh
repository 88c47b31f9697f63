#!/bin/sh
# The main job, for real: two rehearsal hosts, the two commands, an answer; then a client with a key of its own.
# `make demo` runs this; with OFFLINE=1 the hosts have no way out, and all that they get comes out of a signed bundle.
set -eu
cd "$(dirname "$0")/.."
cache=${ONPREM_LLM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/onprem-llm}
work=$cache/demo
began=$(date +%s)
step() { printf '\n== %s (%s s so far)\n' "$1" "$(($(date +%s) - began))"; }

step "Images and the tiny model"
sh images/build.sh
sh images/build.sh tiny-model Tiny "$work/models/tiny"
command -v curl >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends curl; } >/dev/null

step "Two rehearsal hosts with two simulated H100 each${OFFLINE:+, and no way out}"
onprem-llm lab up --name demo --hosts 2 --gpus 2xH100-80GB --inventory "$work/inventory.ini" ${OFFLINE:+--closed}
mkdir -p "$work/group_vars"
sed "s|@IMAGES@|$cache/images|" examples/demo-site.yml >"$work/group_vars/all.yml"
cp examples/tiny.yaml "$work/model.yaml"
# That of an earlier demo's hosts, which bootstrap would not write over.
rm -f "$work/onprem-llm-ca.crt"
cd "$work"

# What the connected machine does ($work), and what then lies on the site's control host ($work/site).
carry() {
    step "onprem-llm facts export, lock, bundle create (on the connected machine)"
    onprem-llm facts export -i inventory.ini -o facts.json
    onprem-llm lock model.yaml --facts facts.json --site group_vars/all.yml --python "$(python_version)"
    [ -f signer ] || ssh-keygen -q -t ed25519 -N '' -C demo -f signer
    printf 'demo namespaces="onprem-llm-bundle" %s\n' "$(cat signer.pub)" >allowed_signers
    rm -rf bundle site
    onprem-llm bundle create --lock onprem-llm.lock -o bundle --sign-key signer

    step "onprem-llm bundle load (on site)"
    onprem-llm bundle load bundle --to site --allowed-signers allowed_signers --facts facts.json
    cp inventory.ini site/
    mkdir -p site/group_vars
    sed 's|images_dir:.*|images_dir: images\n  registry_dir: registry\n  packages_dir: packages|' group_vars/all.yml \
        >site/group_vars/all.yml
    cd site
}
python_version() { python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }
[ -z "${OFFLINE:-}" ] || carry

step "onprem-llm bootstrap inventory.ini"
onprem-llm bootstrap inventory.ini --yes

step "onprem-llm deploy model.yaml${OFFLINE:+ --locked}"
onprem-llm deploy model.yaml ${OFFLINE:+--locked} --yes

step "onprem-llm chat"
question="What is the highest mountain?"
printf '> %s\n' "$question"
onprem-llm chat "$question"
onprem-llm status

step "onprem-llm key create demo, and curl with it"
onprem-llm key revoke demo >/dev/null 2>&1 || true # of an earlier demo on these hosts
made=$(onprem-llm key create demo --json)
made() { printf %s "$made" | python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
key=$(made key) url=$(made url)
body='{"model": "tiny", "messages": [{"role": "user", "content": "What is the highest mountain?"}]}'
cat <<END
\$ curl --cacert onprem-llm-ca.crt $url/chat/completions -H "Authorization: Bearer \$KEY" \\
    --json '$body'
END
curl --silent --show-error --fail-with-body --cacert onprem-llm-ca.crt "$url/chat/completions" \
    -H "Authorization: Bearer $key" --json "$body"
printf '\n'
onprem-llm key usage demo

if [ -n "${OFFLINE:-}" ]; then
    step "onprem-llm lab attempts: what tried to get out"
    onprem-llm lab attempts --name demo
fi

step "Done"
cat <<END
The hosts are up until: make demo-down
Try:  cd $PWD
      onprem-llm chat "世界上最高的山峰是哪座山？"
      onprem-llm scale tiny --replicas 2
      onprem-llm top
END
