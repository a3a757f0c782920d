# one.sh NAME: runs one case in a copy of its directory, and shows what it has said when it has ended.
name=$1
cp -r "/bulkhead/compose/cases/$name" "/srv/$name"
cd "/srv/$name" || exit 1
rm -f expected.txt
began=$(date +%s)
timeout -k 10 120 sh -c ". /bulkhead/compose/common.sh; . ./case.sh; end" >"/transcripts/$name" 2>&1 </dev/null
status=$?
[ "$status" = 0 ] || echo "the case ended with the status $status" >>"/transcripts/$name"
exec 9>/transcripts/.lock
flock 9
echo "=== $name"
sed -E -f /bulkhead/compose/normal.sed "/transcripts/$name"
echo "=== took $name $(($(date +%s) - began))"
