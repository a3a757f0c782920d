# What differs from run to run, or from machine to machine: ids, times, addresses that nobody chose.
s/\b[0-9a-f]{64}\b/ID/g
s/\b[0-9a-f]{12}(\b|_)/ID\1/g
s/\x1b\[[0-9;]*[A-Za-z]//g
s/^time="[^"]*" //
s/[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9:]+)/TIME/g
s/\b[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.]+ \+0000 UTC/TIME/g
s/\bUp (Less than a second|About an? [a-z]+|[0-9]+ [a-z]+)/Up TIME/g
s/(Less than a second|About an? [a-z]+|[0-9]+ [a-z]+) ago/TIME ago/g
s/\b(172\.(1[6-9]|2[0-9]|3[01])|192\.168)(\.[0-9]{1,3}){2}(\/[0-9]+)?/ADDRESS/g
s/\bf[cd][0-9a-f]{2}:[0-9a-f:]+(\/[0-9]+)?/ADDRESS/g
# one that was chosen is kept
s/02:42:0a:08:01:02/CHOSEN/g
s/\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b/MAC/g
s/CHOSEN/02:42:0a:08:01:02/g
# Docker names what it has asked first
s/^OCI runtime exec failed: exec failed: unable to start container process: //
# Compose makes its columns as wide as the names that it knows by then
s/^([a-z0-9-]+-[0-9]+) +\| /\1 | /
s/ +$//
