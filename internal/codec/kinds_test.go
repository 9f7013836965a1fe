package codec_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/codec/compress"
	"github.com/firn-backup/firn/internal/codec/encrypt"
)

// What the list says of a codec is what the codec itself does.
func TestKinds(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{codec.None: true, "": true}
	for _, k := range codec.Kinds() {
		if seen[k.Name] || seen[k.Ext] {
			t.Errorf("%+v: its name or ending is that of another", k)
		}
		seen[k.Name], seen[k.Ext] = true, true
		if byName, ok := codec.KindOf(k.Name); !ok || byName != k {
			t.Errorf("%s: %+v", k.Name, byName)
		}
		if byExt, ok := codec.KindOfExt(k.Ext); !ok || byExt != k {
			t.Errorf("%s: %+v", k.Ext, byExt)
		}
		if k.Cipher {
			checkCipher(t, k)
		} else {
			checkCompression(t, k)
		}
	}
	for _, name := range []string{"", codec.None, "rot13"} {
		if k, ok := codec.KindOf(name); ok {
			t.Errorf("%q: %+v", name, k)
		}
		if k, ok := codec.KindOfExt(name); ok {
			t.Errorf("%q: %+v", name, k)
		}
	}
	if !codec.IsEncryption(codec.None) || codec.IsEncryption("") || codec.IsEncryption(codec.Zstd) {
		t.Error("IsEncryption")
	}
}

func checkCompression(t *testing.T, k codec.Kind) {
	c, err := compress.ByName(k.Name)
	if err != nil {
		t.Error(err)
		return
	}
	if c.Name() != k.Name || c.Ext() != k.Ext || codec.IsEncryption(k.Name) {
		t.Errorf("%+v: it is %s, %s", k, c.Name(), c.Ext())
	}
	for spec, want := range map[string]int{
		k.Name: k.Level, k.Name + ":1": 1, fmt.Sprint(k.Name, ":", k.Levels): k.Levels,
		k.Name + ":0": 0, fmt.Sprint(k.Name, ":", k.Levels+1): 0, k.Name + ":": 0, k.Name + ":01": 0, k.Name + ":+1": 0, k.Name + ":x": 0,
	} {
		name, level, ok := codec.ParseCompression(spec)
		if ok != (want > 0) || ok && (name != k.Name || level != want) {
			t.Errorf("%q: %s, %d, %v", spec, name, level, ok)
		}
	}
}

func checkCipher(t *testing.T, k codec.Kind) {
	if _, err := encrypt.Geometry(k.Name); err != nil || !codec.IsEncryption(k.Name) {
		t.Errorf("%s: %v", k.Name, err)
	}
	if _, err := encrypt.NewDecryptor(k.Name, encrypt.Keys{}); err != nil {
		t.Error(err)
	}
	if _, _, ok := codec.ParseCompression(k.Name); ok {
		t.Errorf("%s compresses", k.Name)
	}
}

func TestParseCompressionNone(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]bool{"none": true, "none:1": false, "": false, ":1": false, "rot13": false, "rot13:1": false} {
		if name, level, ok := codec.ParseCompression(spec); ok != want || ok && (name != codec.None || level != 0) {
			t.Errorf("%q: %s, %d, %v", spec, name, level, ok)
		}
	}
}

func TestPacking(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		names []string
		exts  string
		want  codec.Packing
	}{
		{[]string{"zstd", "age"}, ".zst.age", codec.Packing{Compress: "zstd", Encrypt: "age"}},
		{[]string{"gzip", "none"}, ".gz", codec.Packing{Compress: "gzip", Encrypt: "none"}},
		{[]string{"bzip2"}, ".bz2", codec.Packing{Compress: "bzip2", Encrypt: "none"}},
		{[]string{"none", "openpgp"}, ".gpg", codec.Packing{Compress: "none", Encrypt: "openpgp"}},
		{[]string{"age"}, ".age", codec.Packing{Compress: "none", Encrypt: "age"}},
		{nil, "", codec.Packing{Compress: "none", Encrypt: "none"}},
	} {
		if p, err := codec.PackingOf(c.names); err != nil || p != c.want {
			t.Errorf("%q: %+v, %v", c.names, p, err)
		}
		if p, err := codec.PackingOfExts(c.exts); err != nil || p != c.want {
			t.Errorf("%q: %+v, %v", c.exts, p, err)
		}
	}
	if _, err := codec.PackingOf([]string{"zstd", "rot13"}); !errors.Is(err, codec.ErrUnknown) {
		t.Error(err)
	}
	if _, err := codec.PackingOfExts(".zst.xz"); !errors.Is(err, codec.ErrUnknown) {
		t.Error(err)
	}
}
