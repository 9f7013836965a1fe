#!/usr/bin/env bash
# Runs a session of the real program in an empty home and puts it into README.md,
# between the marks. Called by `make session`; nothing else may edit that block.
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go build -o "$work/bin/firn" ./cmd/firn
home=$work/home/me
mkdir -p "$home/Documents/letters"
cp LICENSE "$home/Documents/licence.txt"
cp README.md "$home/Documents/letters/to-anna.md"
head -c 3000000 /dev/urandom > "$home/Documents/anna.jpg"
head -c 2000000 /dev/urandom > "$home/Documents/blurred.jpg"
export HOME=$home PATH=$work/bin:$PATH TZ=UTC
cd "$home"
out=$work/session
say() { # runs a command and shows it as a terminal would
  printf '$ %s\n' "$*" >> "$out"
  bash -c "$*" >> "$out" 2>&1 || printf '(exit code %d)\n' $? >> "$out"
}
say 'firn backup ~/Documents'
say 'firn key show > key-for-the-safe.txt'
say 'echo "P.S. and thank you" >> Documents/letters/to-anna.md; rm Documents/blurred.jpg'
sleep 1 # a date of its own, to the second
say 'firn backup ~/Documents'
say 'firn snapshots'
first=$(firn snapshots --json | sed -n 's/.*"at": "\(.*\)T\(.*\)\.[0-9]*Z".*/\1 \2/p' | head -n 1)
say "firn diff 'Documents@$first'"
say 'firn find blurred.jpg'
say 'firn restore Documents letters/to-anna.md --to ./back'
say 'tail -n 1 back/'"${home#/}"'/Documents/letters/to-anna.md'
say 'firn verify --read'
sed -i "s#$work##g; s#${work#/}/##g" "$out"
python3 - "$repo/README.md" "$out" <<'PY'
import re, sys
readme, session = sys.argv[1], open(sys.argv[2]).read()
text = open(readme).read()
block = "<!-- session: filled by docs/session.sh -->\n```\n" + session + "```\n<!-- /session -->"
new, n = re.subn(r"<!-- session:.*?<!-- /session -->", lambda m: block, text, flags=re.S)
assert n == 1, "README.md has no session marks"
open(readme, "w").write(new)
PY
