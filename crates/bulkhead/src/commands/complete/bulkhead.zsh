#compdef bulkhead
# completion of bulkhead for zsh: source <(bulkhead completion zsh), or as _bulkhead in $fpath
_bulkhead() {
    local line
    local -a found
    while IFS= read -r line; do
        found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done < <(command "${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    if ((${#found})); then
        _describe bulkhead found
    else
        _files
    fi
}
compdef _bulkhead bulkhead
