package manifest_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
)

// sign puts lines together and signs them, so that what is wrong with them is
// not the signature.
func sign(lines ...string) string {
	body := strings.Join(lines, "\n") + "\n"
	sum := sha256.Sum256([]byte(body))
	sig := ed25519.Sign(testKey(), []byte("firn-manifest-1\n"+hex.EncodeToString(sum[:])+"\n"))
	b64 := base64.StdEncoding.EncodeToString
	return body + `{"signature":{"key":"` + b64(testKey().Public().(ed25519.PublicKey)) + `","sig":"` + b64(sig) + `"}}` + "\n"
}

const (
	headerLine = `{"firn-manifest":1,"min-reader":1,"must":[],"setid":"` + setID + `","snap":"` + snapID + `","n":2,` +
		`"at":"2026-11-22T02:00:00Z","made":"2026-11-22T02:00:00Z","kind":"full","stream":"tar","compress":"zstd","encrypt":"age"}`
	incLine = `{"firn-manifest":1,"min-reader":1,"must":[],"setid":"` + setID + `","snap":"` + snapID + `","n":2,` +
		`"at":"2026-11-22T02:00:00Z","made":"2026-11-22T02:00:00Z","kind":"incremental","base":"` + baseID + `",` +
		`"base-manifest":"1111111111111111111111111111111111111111111111111111111111111111",` +
		`"stream":"tar","compress":"zstd","encrypt":"age"}`
	hash1      = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	volumeLine = `{"volume":1,"archive":"x","size":100,"tree-hash":"` + hash1 + `","raw":20,"frames":[[10,5],[10,6]]}`
	dirLine    = `{"path":"a","type":"d","mode":"0755","mtime":[1,2]}`
	fileTail   = `"type":"f","mode":"0644","mtime":[1,2],"size":10,"vol":1,"off":0,"sha256":"` + hash1 + `"}`
)

func totals(v, e, d, p string) string {
	return `{"totals":{"volumes":` + v + `,"entries":` + e + `,"deleted":` + d + `,"problems":` + p + `}}`
}

func TestReaderAccepts(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"least":          sign(headerLine, totals("0", "0", "0", "0")),
		"usual":          sign(headerLine, volumeLine, dirLine, `{"path":"a/b",`+fileTail, totals("1", "2", "0", "0")),
		"deletion":       sign(incLine, `{"deleted":"a"}`, totals("0", "0", "1", "0")),
		"own n":          sign(headerLine, volumeLine, `{"path":"a","n":2,`+fileTail, totals("1", "1", "0", "0")),
		"unknown key":    sign(headerLine, `{"path":"a","type":"d","mode":"0755","mtime":[1,2],"new":{"x":[1.5e3,null,true,"\u00e9"]}}`, totals("0", "1", "0", "0")),
		"unknown line":   sign(headerLine, `{"index":[1]}`, dirLine, `{"note":"x","path":"b"}`, totals("0", "1", "0", "0")),
		"white space":    sign(" "+headerLine+"\t", `{ "path" : "a" , "type":"d","mode":"0755","mtime":[ 1 , 2 ] }`+"\r", totals("0", "1", "0", "0")),
		"escapes":        sign(headerLine, `{"path":"\u0061\ud83d\ude00\/b\n","type":"d","mode":"0755","mtime":[1,2]}`, totals("0", "1", "0", "0")),
		"newer, still 1": sign(strings.Replace(headerLine, `-manifest":1`, `-manifest":7`, 1), totals("0", "0", "0", "0")),
		"known must":     sign(strings.Replace(headerLine, `"must":[]`, `"must":["sparse","paths64"]`, 1), totals("0", "0", "0", "0")),
		"base64 of text": sign(headerLine, `{"path64":"YQ==","type":"d","mode":"0755","mtime":[1,2]}`, totals("0", "1", "0", "0")),
	} {
		if _, _, err := read(strings.NewReader(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	t.Parallel()
	zero := totals("0", "0", "0", "0")
	one := func(line string) string { return sign(incLine, volumeLine, line, totals("1", "1", "0", "0")) }
	head := func(old, new string) string {
		h := strings.Replace(headerLine, old, new, 1)
		if h == headerLine {
			t.Errorf("%s is not in the header", old)
		}
		return sign(h, zero)
	}
	vol := func(old, new string) string {
		v := strings.Replace(volumeLine, old, new, 1)
		if v == volumeLine {
			t.Errorf("%s is not in the volume", old)
		}
		return sign(headerLine, v, totals("1", "0", "0", "0"))
	}
	good := sign(headerLine, zero)
	if _, _, err := read(strings.NewReader(one(`{"path":"a",` + fileTail))); err != nil {
		t.Fatal(err)
	}
	cases := map[string]string{
		"empty":                "",
		"no JSON":              "hello\n",
		"not ours":             "{}\n",
		"unsigned":             headerLine + "\n" + zero + "\n",
		"no totals":            headerLine + "\n",
		"signed without":       sign(headerLine),
		"after the signature":  good + "\n",
		"two manifests":        good + good,
		"line after totals":    sign(headerLine, zero, `{"new":1}`),
		"totals twice":         sign(headerLine, zero, zero),
		"totals' volumes":      sign(headerLine, totals("1", "0", "0", "0")),
		"totals' entries":      sign(headerLine, dirLine, zero),
		"totals' deleted":      sign(incLine, `{"deleted":"a"}`, zero),
		"totals' problems":     sign(headerLine, `{"problem":"a","reason":"r"}`, zero),
		"signature cut":        strings.TrimSuffix(good, "\n"),
		"order":                sign(headerLine, `{"path":"b","type":"d","mode":"0755","mtime":[1,2]}`, dirLine, totals("0", "2", "0", "0")),
		"volume after entry":   sign(headerLine, dirLine, volumeLine, totals("1", "1", "0", "0")),
		"delete and entry":     sign(incLine, `{"deleted":"a"}`, dirLine, totals("0", "1", "1", "0")),
		"deletion in a full":   sign(headerLine, `{"deleted":"a"}`, totals("0", "0", "1", "0")),
		"dotdot deleted":       sign(incLine, `{"deleted":"a/.."}`, totals("0", "0", "1", "0")),
		"problem with dotdot":  sign(headerLine, `{"problem":"../x","reason":"r"}`, totals("0", "0", "0", "1")),
		"path absolute":        one(`{"path":"/a",` + fileTail),
		"path dotdot":          one(`{"path":"a/../../b",` + fileTail),
		"path dotdot base64":   one(`{"path64":"Li4=",` + fileTail),
		"path NUL":             one(`{"path":"a\u0000b",` + fileTail),
		"path empty":           one(`{"path":"",` + fileTail),
		"path slash":           one(`{"path":"a/",` + fileTail),
		"path not UTF-8":       one("{\"path\":\"a\xff\"," + fileTail),
		"path surrogate":       one(`{"path":"a\ud800",` + fileTail),
		"path low surrogate":   one(`{"path":"a\udc00\ud800",` + fileTail),
		"path control":         one("{\"path\":\"a\x01\"," + fileTail),
		"path and path64":      one(`{"path":"a","path64":"YQ==",` + fileTail),
		"path twice":           one(`{"path":"a","path":"b",` + fileTail),
		"path a number":        one(`{"path":1,` + fileTail),
		"base64 loose":         one(`{"path64":"/x==",` + fileTail),
		"base64 line feed":     one(`{"path64":"Y\nQ==",` + fileTail),
		"key twice":            one(`{"path":"a","size":10,` + fileTail),
		"off negative":         one(strings.Replace(`{"path":"a",`+fileTail, `"off":0`, `"off":-1`, 1)),
		"off beyond":           one(strings.Replace(`{"path":"a",`+fileTail, `"off":0`, `"off":11`, 1)),
		"off overflow":         one(strings.Replace(`{"path":"a",`+fileTail, `"off":0`, `"off":9223372036854775807`, 1)),
		"off too large":        one(strings.Replace(`{"path":"a",`+fileTail, `"off":0`, `"off":9223372036854775808`, 1)),
		"off a fraction":       one(strings.Replace(`{"path":"a",`+fileTail, `"off":0`, `"off":0.0`, 1)),
		"off padded":           one(strings.Replace(`{"path":"a",`+fileTail, `"off":0`, `"off":00`, 1)),
		"vol 0":                one(strings.Replace(`{"path":"a",`+fileTail, `"vol":1`, `"vol":0`, 1)),
		"vol 2":                one(strings.Replace(`{"path":"a",`+fileTail, `"vol":1`, `"vol":2`, 1)),
		"no vol":               one(strings.Replace(`{"path":"a",`+fileTail, `"vol":1,`, ``, 1)),
		"no sha256":            one(`{"path":"a","type":"f","mode":"0644","mtime":[1,2],"size":10,"vol":1,"off":0}`),
		"upper-case hex":       one(strings.Replace(`{"path":"a",`+fileTail, hash1, strings.ToUpper(hash1), 1)),
		"short hex":            one(strings.Replace(`{"path":"a",`+fileTail, hash1, hash1[1:], 1)),
		"later snapshot":       one(`{"path":"a","n":3,` + fileTail),
		"snapshot 0":           one(`{"path":"a","n":0,` + fileTail),
		"other one in a full":  sign(headerLine, volumeLine, `{"path":"a","n":1,`+fileTail, totals("1", "1", "0", "0")),
		"stored":               one(`{"path":"a","stored":9,` + fileTail),
		"stored negative":      one(`{"path":"a","sparse":true,"stored":-9,` + fileTail),
		"torn text":            one(`{"path":"a","torn":"true",` + fileTail),
		"mode decimal":         one(strings.Replace(`{"path":"a",`+fileTail, `"0644"`, `420`, 1)),
		"mode 8":               one(strings.Replace(`{"path":"a",`+fileTail, `"0644"`, `"0648"`, 1)),
		"mode long":            one(strings.Replace(`{"path":"a",`+fileTail, `"0644"`, `"10644"`, 1)),
		"mode empty":           one(strings.Replace(`{"path":"a",`+fileTail, `"0644"`, `""`, 1)),
		"type missing":         one(strings.Replace(`{"path":"a",`+fileTail, `"type":"f",`, ``, 1)),
		"type unknown":         one(strings.Replace(`{"path":"a",`+fileTail, `"type":"f"`, `"type":"x"`, 1)),
		"nsec":                 one(strings.Replace(`{"path":"a",`+fileTail, `[1,2]`, `[1,1000000000]`, 1)),
		"uid":                  one(`{"path":"a","uid":4294967296,` + fileTail),
		"device without":       one(`{"path":"a","type":"c","mode":"0755","mtime":[1,2]}`),
		"xattr twice":          one(`{"path":"a","xattrs":{"user.a":"","user.a":""},` + fileTail),
		"xattr twice, base64":  one(`{"path":"a","xattrs":{"a":""},"xattrs64":{"YQ==":""},` + fileTail),
		"something after":      one(`{"path":"a",` + fileTail + `{}`),
		"nested deep":          one(`{"path":"a","new":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `,` + fileTail),
		"kind unknown":         head(`"full"`, `"part"`),
		"n missing":            head(`"n":2,`, ``),
		"n twice":              head(`"n":2,`, `"n":2,"n":3,`),
		"date missing":         head(`"at":"2026-11-22T02:00:00Z",`, ``),
		"date not UTC":         head(`"at":"2026-11-22T02:00:00Z"`, `"at":"2026-11-22T02:00:00+01:00"`),
		"date bad":             head(`"at":"2026-11-22T02:00:00Z"`, `"at":"2026-13-22T02:00:00Z"`),
		"setid lower":          head(setID, strings.ToLower(setID)),
		"no stream":            head(`"stream":"tar",`, ``),
		"Upper-case key":       head(`"n":2`, `"N":2`),
		"min-reader missing":   head(`"min-reader":1,`, ``),
		"frames' sum":          vol(`[10,6]`, `[11,6]`),
		"frames negative":      vol(`[10,6]`, `[10,-6]`),
		"frames overflow":      vol(`[10,6]`, `[9223372036854775807,6]`),
		"frames larger":        vol(`[10,6]`, `[10,600]`),
		"no frames":            vol(`,"frames":[[10,5],[10,6]]`, ``),
		"volume 2":             vol(`"volume":1`, `"volume":2`),
		"volume without hash":  vol(`"tree-hash":"`+hash1+`",`, ``),
		"leaves wrong":         vol(`"raw":`, `"leaves":"`+base64.StdEncoding.EncodeToString(make([]byte, 32))+`","raw":`),
		"leaves odd":           vol(`"raw":`, `"leaves":"`+base64.StdEncoding.EncodeToString(make([]byte, 31))+`","raw":`),
		"leaves too many":      vol(`"raw":`, `"leaves":"`+base64.StdEncoding.EncodeToString(make([]byte, 64))+`","raw":`),
		"line without an end":  headerLine + "\n" + strings.Repeat(" ", 100),
		"first line very long": strings.Repeat(" ", manifest.MaxLine+1),
	}
	for name, text := range cases {
		_, r, err := read(strings.NewReader(text))
		if err == nil || failure.KindOf(err) != failure.Damaged {
			t.Errorf("%s: %v", name, err)
		}
		if r != nil && (r.Signer() != nil || r.Hash() != manifest.Hash{}) {
			t.Errorf("%s: a signer in spite of the error", name)
		}
	}
	if _, _, err := read(strings.NewReader(cases["unsigned"])); err == nil || !strings.Contains(err.Error(), "unsigned") {
		t.Errorf("unsigned: %v", err)
	}
}

func TestNeedsNewer(t *testing.T) {
	t.Parallel()
	for _, h := range []string{
		`{"firn-manifest":2,"min-reader":2,"must":[],"n":"has become a string"}`,
		`{"n":[],"min-reader":99,"firn-manifest":100}`,
		strings.Replace(headerLine, `"must":[]`, `"must":["sparse","dedup"]`, 1),
	} {
		_, _, err := read(strings.NewReader(h + "\n"))
		if err == nil || failure.KindOf(err) != failure.Failed || !strings.Contains(err.Error(), "needs a newer Firn") {
			t.Errorf("%s: %v", h, err)
		}
	}
}

// FuzzReader gives the reader bodies with a good signature: it must not panic,
// accept nothing that is not JSON, and what it accepts must be written again
// and read the same.
func FuzzReader(f *testing.F) {
	b, _ := write(f, everything())
	lines := bytes.SplitAfter(b, []byte("\n"))
	f.Add(bytes.Join(lines[:len(lines)-2], nil))
	f.Add([]byte(headerLine + "\n" + volumeLine + "\n" + dirLine + "\n" + totals("1", "1", "0", "0") + "\n"))
	f.Add([]byte(incLine + "\n" + `{"deleted64":"/w=="}` + "\n" + totals("0", "0", "1", "0") + "\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		text := sign(strings.TrimSuffix(string(body), "\n"))
		d, _, err := read(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
			if !json.Valid([]byte(line)) {
				t.Fatalf("accepted, but not JSON: %q", line)
			}
		}
		again, _, err := tryWrite(d)
		if err != nil {
			t.Fatalf("read, but not written: %v", err)
		}
		d2, _, err := read(bytes.NewReader(again))
		if err != nil || len(d2.records) != len(d.records) {
			t.Fatalf("written, but not read: %v", err)
		}
		third, _, err := tryWrite(d2)
		if err != nil || !bytes.Equal(again, third) {
			t.Fatalf("written differently the second time: %v", err)
		}
	})
}
