#!/bin/sh
# Say what this host is, as onprem-llm's facts.json, and change nothing:
#
#   sh collect.sh > HOST.json          HOST as the inventory calls it, if that is its own name
#   sh collect.sh web-7 > web-7.json   else name it
#
# It needs a POSIX shell and coreutils, no root; nvidia-smi is asked where it is. roles/host_probe's
# onprem_llm_probe_facts.py says the same things through Ansible: change both or none.
set -eu
LC_ALL=C
PATH=${PATH:-}:/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/bin:/usr/lib/wsl/lib
export LC_ALL PATH
# Another root serves the tests.
root=${ONPREM_LLM_COLLECT_ROOT:-}
newline='
'

# A JSON string of $1. A byte at a time: with nothing but the shell there is no better way.
quoted() (
    rest=$1 out=''
    while [ -n "$rest" ]; do
        tail=${rest#?}
        char=${rest%"$tail"}
        rest=$tail
        case $char in
            '"' | \\) out=$out\\$char ;;
            [[:cntrl:]]) out=$out$(printf '\\u%04x' "'$char") ;;
            *) out=$out$char ;;
        esac
    done
    printf '"%s"' "$out"
)

# A JSON string, or null where $1 is empty.
known() {
    if [ -n "$1" ]; then quoted "$1"; else printf null; fi
}

# What $1 is without blanks around it.
trimmed() (
    text=$1
    text=${text#"${text%%[![:space:]]*}"}
    printf '%s' "${text%"${text##*[![:space:]]}"}"
)

# The value of KEY ($1) in os-release, without its quotes.
release() (
    for file in "$root/etc/os-release" "$root/usr/lib/os-release"; do
        [ -r "$file" ] || continue
        found=''
        while IFS= read -r line || [ -n "$line" ]; do
            case $line in "$1="*) found=$(trimmed "${line#*=}") ;; esac
        done <"$file"
        while :; do
            case $found in
                [\"\']*) found=${found#?} ;;
                *[\"\']) found=${found%?} ;;
                *) break ;;
            esac
        done
        printf '%s' "$found"
        return
    done
)

# The first value of the line that begins with $2 in file $1, as /proc writes them (key : value).
proc_value() (
    [ -r "$1" ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            "$2"[[:space:]:]*) trimmed "${line#*:}"; return ;;
        esac
    done <"$1"
)

# Every kernel whose image or modules are whole, sorted, as JSON.
kernels() (
    for path in "$root"/boot/vmlinuz-* "$root"/lib/modules/*/modules.builtin; do
        [ -e "$path" ] || continue
        case $path in
            */modules.builtin) path=${path%/*} name=${path##*/} ;;
            *) name=${path##*/vmlinuz-} ;;
        esac
        case $name in *[!A-Za-z0-9.+:~_-]* | [!A-Za-z0-9]* | *rescue* | *.old) continue ;; esac
        printf '%s\n' "$name"
    done | sort -u | {
        comma=''
        while IFS= read -r name; do
            printf '%s"%s"' "$comma" "$name"
            comma=', '
        done
    }
)

# vendor:device of 0xDDDDVVVV, as nvidia-smi writes it; nothing where it is none.
pci_id() {
    case $1 in
        0x | 0x*[!0-9A-Fa-f]*) ;;
        0x*) printf '%04x:%04x' $(($1 & 65535)) $(($1 >> 16)) ;;
    esac
}

# One GPU: name, memory in MiB or nothing, PCI id or nothing.
gpu() {
    memory=null
    case $2 in '' | *[!0-9]*) ;; *) memory=$(($2 * 1048576)) ;; esac
    printf '%s{"name": %s, "memory_bytes": %s, "pci_id": %s}' "$separator" "$(quoted "$1")" "$memory" "$(known "$3")"
    separator=', '
}

# The GPUs that the driver knows; without a driver, what the bus says of NVIDIA's.
gpus() (
    separator='' said=''
    if command -v nvidia-smi >/dev/null 2>&1; then
        query='--query-gpu=name,memory.total,pci.device_id'
        said=$(timeout 20 nvidia-smi "$query" --format=csv,noheader,nounits 2>/dev/null) || said=''
    fi
    while IFS= read -r line; do
        case $line in *,*,*) ;; *) continue ;; esac
        rest=${line%,*}
        gpu "$(trimmed "${rest%,*}")" "$(trimmed "${rest##*,}")" "$(pci_id "$(trimmed "${line##*,}")")"
    done <<END
$said
END
    [ -z "$separator" ] || return 0
    for device in "$root"/sys/bus/pci/devices/*; do
        vendor='' class='' id=''
        [ ! -r "$device/vendor" ] || read -r vendor <"$device/vendor" || :
        [ ! -r "$device/class" ] || read -r class <"$device/class" || :
        [ ! -r "$device/device" ] || read -r id <"$device/device" || :
        case $vendor$class$id in
            0x10de0x03????0x????) gpu "NVIDIA 10de:${id#0x}" '' "10de:${id#0x}" ;;
        esac
    done
)

# How many NVSwitches join its GPUs: bridges of another kind on the bus.
switches() (
    count=0
    for device in "$root"/sys/bus/pci/devices/*; do
        vendor='' class=''
        [ ! -r "$device/vendor" ] || read -r vendor <"$device/vendor" || :
        [ ! -r "$device/class" ] || read -r class <"$device/class" || :
        case $vendor$class in 0x10de0x0680??) count=$((count + 1)) ;; esac
    done
    printf %s "$count"
)

# The driver that is loaded, as its kernel module says; null where there is none.
driver() (
    line=''
    [ ! -r "$root/proc/driver/nvidia/version" ] || read -r line <"$root/proc/driver/nvidia/version" || :
    set -f
    for word in $line; do
        case $word in
            *[!0-9.]* | *..* | *. | *.*.*.*) ;;
            [0-9][0-9][0-9].*) known "$word"; return ;;
        esac
    done
    printf null
)

# A path out of /proc/mounts, where blanks are written as \040.
unescaped() (
    rest=$1 out=''
    while :; do
        case $rest in
            *\\*) out=$out${rest%%\\*}\\0 rest=${rest#*\\} ;;
            *) break ;;
        esac
    done
    printf '%b.' "$out$rest"
)

# Bytes of the file system at $1, all and free: exactly, else in steps of a kibibyte.
room() (
    if said=$(timeout 5 stat -f -c '%S %b %a' "$1" 2>/dev/null); then
        # shellcheck disable=SC2086 # three numbers
        set -- $said
        [ "$1" -gt 0 ] && printf '%s %s' $(($1 * $2)) $(($1 * $3))
        return
    fi
    # A name may hold a newline, and a device blanks: the numbers are taken from the end of the last line.
    said=$(timeout 5 df -P -k "$1" 2>/dev/null) || return 1
    line=${said##*"$newline"}
    line=${line%%%*}
    # shellcheck disable=SC2086 # words
    set -- $line
    while [ $# -gt 4 ]; do shift; done
    printf '%s %s' $(($1 * 1024)) $(($3 * 1024))
)

disks() (
    separator='' seen=''
    while read -r device mount filesystem rest; do
        case $filesystem in squashfs | iso9660 | udf) continue ;; esac
        case $device:$filesystem in
            /*:* | *:nfs | *:nfs4 | *:cifs | *:smb3 | *:ceph | *:lustre | *:gpfs | *:beegfs) ;;
            *:zfs | *:9p | *:virtiofs | *:fuse.glusterfs | *:fuse.ceph) ;;
            *) [ "$mount" = / ] || continue ;;
        esac
        case $seen in *"$newline$device$newline"* | *"$newline$mount$newline"*) continue ;; esac
        path=$(unescaped "$mount")
        path=${path%.}
        if [ ! -d "$path" ] || ! bytes=$(room "$path"); then continue; fi
        seen=$seen$newline$device$newline$mount$newline
        printf '%s{"mount": %s, "filesystem": %s, "size_bytes": %s, "free_bytes": %s}' "$separator" \
            "$(quoted "$path")" "$(quoted "$filesystem")" "${bytes% *}" "${bytes#* }"
        separator=', '
    done <"$root/proc/mounts"
)

# The version of python3, or null.
python() {
    said=$(python3 -V 2>/dev/null) || said=''
    case $said in 'Python '*) known "${said#Python }" ;; *) printf null ;; esac
}

name=${1:-$(uname -n)}
memory=$(proc_value "$root/proc/meminfo" MemTotal)
id=$(release ID)
model=$(proc_value "$root/proc/cpuinfo" 'model name')
# nproc counts as OpenMP is told, where it is told something.
cat <<END
{"schema_version": 1, "hosts": {$(quoted "$name"): {
 "os": {"id": $(quoted "${id:-unknown}"), "version_id": $(quoted "$(release VERSION_ID)"), "codename": $(
    quoted "$(release VERSION_CODENAME)")},
 "architecture": $(quoted "$(uname -m)"),
 "kernels": {"running": $(quoted "$(uname -r)"), "installed": [$(kernels)]},
 "cpu": {"model": $(quoted "${model:-unknown}"), "cores": $(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)},
 "memory_bytes": $((${memory%%[!0-9]*} * 1024)),
 "gpus": [$(gpus)],
 "nvswitches": $(switches),
 "driver": $(driver),
 "disks": [$(disks)],
 "python": $(python),
 "collected_with": "collect.sh 1"
}}}
END
