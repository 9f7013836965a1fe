package codec

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// This file is the one list of codecs: how config files, manifests and descriptions name them, and how the names of
// archives end. What they do is in codec/compress and codec/encrypt, whose tests hold them against it.

// Names of the compressions, and of the encryptions. None is one of each.
const (
	Zstd  = "zstd"
	Gzip  = "gzip"
	Bzip2 = "bzip2"

	Age     = "age"
	OpenPGP = "openpgp"

	None = "none"
)

// Kind is a codec there is.
type Kind struct {
	Name   string
	Ext    string // how names of archives end: ".zst"
	Cipher bool   // it encrypts; else it compresses
	// Levels are a compression's levels, from 1 to Levels, and Level is the one where none is asked for.
	Level, Levels int
}

// Kinds are all codecs but None.
func Kinds() []Kind {
	return []Kind{
		{Name: Zstd, Ext: ".zst", Level: 3, Levels: 19},
		{Name: Gzip, Ext: ".gz", Level: 6, Levels: 9},
		{Name: Bzip2, Ext: ".bz2", Level: 9, Levels: 9},
		{Name: Age, Ext: ".age", Cipher: true},
		{Name: OpenPGP, Ext: ".gpg", Cipher: true},
	}
}

// KindOf finds a codec by its name. None has no Kind.
func KindOf(name string) (k Kind, ok bool) {
	for _, k := range Kinds() {
		if k.Name == name {
			return k, true
		}
	}
	return Kind{}, false
}

// KindOfExt finds a codec by the ending of an archive's name, with its dot.
func KindOfExt(ext string) (k Kind, ok bool) {
	for _, k := range Kinds() {
		if k.Ext == ext {
			return k, true
		}
	}
	return Kind{}, false
}

// ErrUnknown is returned for a codec that is not among Kinds.
var ErrUnknown = errors.New("how it is packed is not known")

// Packing are the names of what an archive was compressed with, and then encrypted with: None where it was not.
type Packing struct {
	Compress, Encrypt string
}

// PackingOf is the packing with the codecs of the names given; None may be left out. ErrUnknown.
func PackingOf(names []string) (Packing, error) {
	p := Packing{None, None}
	for _, name := range names {
		if name == None {
			continue
		}
		k, ok := KindOf(name)
		if !ok {
			return Packing{}, fmt.Errorf("%w: %s", ErrUnknown, name)
		}
		p.add(k)
	}
	return p, nil
}

// PackingOfExts is the packing that the endings of an archive's name tell: ".zst.age". ErrUnknown.
func PackingOfExts(exts string) (Packing, error) {
	p := Packing{None, None}
	for ext := range strings.SplitSeq(strings.TrimPrefix(exts, "."), ".") {
		if ext == "" {
			continue
		}
		k, ok := KindOfExt("." + ext)
		if !ok {
			return Packing{}, fmt.Errorf("%w: .%s", ErrUnknown, ext)
		}
		p.add(k)
	}
	return p, nil
}

func (p *Packing) add(k Kind) {
	if k.Cipher {
		p.Encrypt = k.Name
	} else {
		p.Compress = k.Name
	}
}

// ParseCompression takes NAME or NAME:LEVEL apart: a compression's name, or None, and its level, which is that of
// its Kind where none is given. ok is false for all else.
func ParseCompression(spec string) (name string, level int, ok bool) {
	name, text, hasLevel := strings.Cut(spec, ":")
	if name == None {
		return name, 0, !hasLevel
	}
	k, ok := KindOf(name)
	if !ok || k.Cipher {
		return "", 0, false
	}
	if !hasLevel {
		return name, k.Level, true
	}
	n, err := strconv.Atoi(text)
	return name, n, err == nil && n >= 1 && n <= k.Levels && text == strconv.Itoa(n)
}

// IsEncryption says whether a name is that of an encryption, or None.
func IsEncryption(name string) bool {
	k, ok := KindOf(name)
	return name == None || ok && k.Cipher
}
