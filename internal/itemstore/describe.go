package itemstore

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/foreign"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

// What the archives of such sets are in descriptions of Firn's own form.
const (
	WhatItem  = "item"
	WhatIndex = "items"
)

// Mark says whose an archive with a description of mt-aws-glacier's form is: keys beside filename and mtime,
// which that program passes over.
type Mark struct {
	SetID string `json:"setid"`
	Set   string `json:"set"`
	Host  string `json:"host"`
	Kind  string `json:"kind,omitempty"`
	Dir   bool   `json:"dir,omitempty"` // a directory as tar
	// Codec is the compression, and Ext what the name of the item got at its end.
	Codec string `json:"codec,omitempty"`
	Ext   string `json:"ext,omitempty"`
}

type mt2 struct {
	Filename string `json:"filename"`
	Mtime    string `json:"mtime"`
	Mark
}

// Described reads whose an archive of Firn's is and what it is, by its description or, where listings tell none, by its name; ok is false for others.
func Described(a coldstore.Archive) (d manifest.Description, ok bool) {
	if d, ok = manifest.ParseDescription(a.Description); ok {
		return d, true
	}
	if d, ok = manifest.ParseName(a.ID); ok {
		return d, true
	}
	return parseName(a.ID)
}

// Names of archives are LABEL-SETID/items/item-ID.EXTS, those of indexes LABEL-SETID/items/items-NUMBER-ID.jsonl.EXTS, with "-full" before the
// ID where it tells of everything: for vaults whose listings tell names only. Older ones have no number.
const namesDir = "items"

func indexName(run catalog.ItemRun) string {
	name := fmt.Sprintf("%s-%06d", WhatIndex, run.N)
	if run.IndexFrom <= 1 {
		name += "-full"
	}
	return name
}

// parseName reads a name. What it does not tell stays empty.
func parseName(name string) (d manifest.Description, ok bool) {
	parts := strings.Split(name, "/")
	if len(parts) < 3 || parts[len(parts)-2] != namesDir {
		return d, false
	}
	dir, file := parts[len(parts)-3], parts[len(parts)-1]
	cut := strings.LastIndexByte(dir, '-')
	if cut < 1 || !snapshot.ValidID(dir[cut+1:]) {
		return d, false
	}
	d.Set, d.SetID, d.What = dir[:cut], dir[cut+1:], WhatItem
	stem, ends, _ := strings.Cut(file, ".")
	words := strings.Split(stem, "-")
	if words[0] != WhatIndex || !snapshot.ValidID(words[len(words)-1]) || !strings.HasPrefix("."+ends, ".jsonl") {
		return d, true
	}
	d.What = WhatIndex
	if len(words) > 2 {
		if n, err := strconv.ParseUint(words[1], 10, 62); err == nil {
			d.N, d.Kind = n, snapshot.Incremental
			if words[2] == "full" {
				d.Kind = snapshot.Full
			}
		}
	}
	for end := range strings.SplitSeq(ends, ".") {
		if k, ok := codec.KindOfExt("." + end); ok {
			d.Codecs = append(d.Codecs, k.Name)
		}
	}
	return d, true
}

// DescribeMT2 is the description of an archive that needs nothing else to be found again: name and time in the form of
// mt-aws-glacier (docs/howto/items.md), and the mark. ok is false where that does not fit.
func DescribeMT2(name string, mtime time.Time, m Mark) (text string, ok bool) {
	base, ok := foreign.EncodeMT2(name, mtime)
	if !ok {
		return "", false
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(base, "mt2 "))
	if err != nil {
		return "", false
	}
	var all mt2
	if err := json.Unmarshal(raw, &all); err != nil {
		return "", false
	}
	all.Mark = m
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(all) != nil {
		return "", false
	}
	text = "mt2 " + base64.RawURLEncoding.EncodeToString([]byte(strings.TrimSuffix(b.String(), "\n")))
	return text, len(text) <= manifest.MaxDescription
}

// ParseMT2 reads what DescribeMT2 writes, and what mt-aws-glacier does; then the mark is empty. Name is the item's: without
// the mark's extension.
func ParseMT2(description string) (name string, mtime time.Time, m Mark, ok bool) {
	a, ok := foreign.Decode(description)
	if !ok || a.Tool != foreign.MTAWS && a.Tool != foreign.Firn || len(description) > manifest.MaxDescription {
		return "", time.Time{}, m, false
	}
	if fields := strings.Fields(description); len(fields) == 2 {
		if raw, err := base64.RawURLEncoding.DecodeString(fields[1]); err == nil {
			var all mt2
			if json.Unmarshal(raw, &all) == nil && all.SetID != "" {
				m = all.Mark
			}
		}
	}
	name = a.Name
	if m.Ext != "" {
		short, cut := strings.CutSuffix(name, m.Ext)
		if !cut || short == "" {
			return "", time.Time{}, m, false
		}
		name = short
	}
	if !goodPath(name) {
		return "", time.Time{}, m, false
	}
	return name, a.ModTime, m, true
}

// goodPath says whether a name from a vault may be a relative path.
func goodPath(p string) bool {
	if p == "" || strings.ContainsRune(p, 0) {
		return false
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}
