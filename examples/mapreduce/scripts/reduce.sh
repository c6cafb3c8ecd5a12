#!/bin/sh
# Deals the lines of the text out to the mappers, lets them count beside each other, and adds up what they found.
set -eu
text=$VWS_CONTEXT/data/text
result=${RESULT:-/root/words}
mappers=$(vws-members mapper | cut -d ' ' -f 1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

count=$(echo "$mappers" | wc -l)
number=0
for mapper in $mappers; do
    awk -v count="$count" -v number="$number" 'NR % count == number' "$text" >"$work/part.$number"
    # What failed leaves a mark: the status of a process in the background is easily lost.
    { ssh -T "root@$mapper" /usr/local/bin/count-words <"$work/part.$number" >"$work/found.$number" ||
        echo "$mapper" >>"$work/failed"; } &
    number=$((number + 1))
done
wait
if [ -e "$work/failed" ]; then
    echo "no answer from: $(tr '\n' ' ' <"$work/failed")"
    exit 1
fi

awk '{ count[$2] += $1 } END { for (word in count) print count[word], word }' "$work"/found.* |
    sort -k 1,1nr -k 2,2 >"$result"
echo "$(wc -l <"$result") words, by $count mappers"
head -n 5 "$result"
