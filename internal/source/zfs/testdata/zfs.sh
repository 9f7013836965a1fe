#!/bin/bash
# A stand-in for a new zfs: holds, bookmarks, raw streams. Its pool is the directory $POOL: a file per snapshot (its
# contents: guid, creation) and per bookmark, and one per hold. Every call is a line of $POOL/calls.
set -eu
echo "$*" >>"$POOL/calls"
say() { echo "$1" >&2; exit 1; }
last() { echo "${@: -1}"; }
file() { echo "$POOL/${1//\//_}"; }
case "${1-}" in
"")
  printf 'usage: zfs command args ...\n\tsnapshot [-r] ...\n\tbookmark <snapshot|bookmark> <newbookmark>\n' >&2
  printf '\tsend [-DLPbcehnpsVvw] [-i|-I snapshot] <snapshot>\n\thold [-r] <tag> <snapshot> ...\n' >&2
  exit 2 ;;
snapshot)
  f=$(file "$(last "$@")")
  [ ! -e "$f" ] || say "cannot create snapshot: dataset already exists"
  n=$(cat "$POOL/n" 2>/dev/null || echo 100); echo $((n + 1)) >"$POOL/n"
  echo "$n 17000000$n" >"$f" ;;
get)
  d=$(last "$@")
  for f in "$POOL/${d//\//_}"[@#]*; do
    [ -e "$f" ] || continue
    case "$f" in *.hold.*) continue ;; esac
    read -r guid created <"$f"
    name=$d${f#"$POOL/${d//\//_}"}
    held=0; for h in "$f".hold.*; do [ ! -e "$h" ] || held=$((held + 1)); done
    printf '%s\tcreation\t%s\n%s\tguid\t%s\n%s\tuserrefs\t%s\n' "$name" "$created" "$name" "$guid" "$name" "$held"
  done ;;
hold)
  f=$(file "$(last "$@")").hold.${*: -2:1}
  [ ! -e "$f" ] || say "cannot hold snapshot: tag already exists on this dataset"
  touch "$f" ;;
release)
  f=$(file "$(last "$@")")
  [ -e "$f" ] || say "cannot open: dataset does not exist"
  rm "$f.hold.${*: -2:1}" 2>/dev/null || say "cannot release hold: no such tag on this dataset" ;;
bookmark)
  [ ! -e "$(file "$3")" ] || say "cannot create bookmark: bookmark exists"
  cp "$(file "$2")" "$(file "$3")" ;;
destroy)
  f=$(file "$(last "$@")")
  [ -e "$f" ] || say "could not find any snapshots to destroy; check snapshot names."
  ls "$f".hold.* >/dev/null 2>&1 && say "cannot destroy snapshot: dataset is busy"
  rm "$f" ;;
send)
  read -r guid _ <"$(file "$(last "$@")")" || say "cannot open: dataset does not exist"
  from=0
  prev=
  for a in "$@"; do
    case "$prev" in -i | -I) read -r from _ <"$(file "$a")" ;; esac
    prev=$a
  done
  u64() { for i in 0 1 2 3 4 5 6 7; do printf "\\x$(printf %02x $(($1 >> (8 * i) & 255)))"; done; }
  u64 0; printf '\xac\xcb\xba\xf5\x02\0\0\0'; u64 1; u64 0; u64 0; u64 "$guid"; u64 "$from"; head -c 256 /dev/zero
  printf '\5\0\0\0'; head -c 308 /dev/zero ;;
*) say "unknown command $1" ;;
esac
