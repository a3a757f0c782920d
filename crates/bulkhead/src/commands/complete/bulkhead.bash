# completion of bulkhead for bash: source <(bulkhead completion bash)
_bulkhead() {
    local line word=$2 colon
    local IFS=$'\n'
    # bash divides words at colons and equals signs, which are parts of names here
    local -a words=()
    local -i at=1
    while ((at <= COMP_CWORD)); do
        word=${COMP_WORDS[at]}
        while ((at < COMP_CWORD)) && [[ $word == *: || ${COMP_WORDS[at + 1]} == :* ]]; do
            at+=1
            word+=${COMP_WORDS[at]}
        done
        words+=("$word")
        at+=1
    done
    COMPREPLY=()
    while read -r line; do
        COMPREPLY+=("${line%%$'\t'*}")
    done < <(command "${COMP_WORDS[0]}" __complete "${words[@]}" 2>/dev/null)
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
        colon=${word%"${word##*:}"}
        COMPREPLY=("${COMPREPLY[@]#"$colon"}")
    fi
}
complete -o default -F _bulkhead bulkhead
