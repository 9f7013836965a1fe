package glaciercli

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func testParser() *parser {
	return &parser{prog: "p", options: append(helpOption(),
		option{long: "--wait"}, option{long: "--name", value: "N"}, option{long: "--name-all"}, option{short: "-o", value: "F"},
		option{long: "--max-age", value: "H", number: true}), arguments: []argument{{name: "vault"}, {name: "name", many: true}}}
}

// Each line: what is given; what it means, or which error it is. As Python 3.11's argparse has it.
func TestArgparse(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"v a":                 "v,a",
		"v a b --wait":        "v,a,b --wait=",
		"v --wait a":          "v,a --wait=",
		"-o- v a":             "v,a -o=-",
		"v a -o -":            "v,a -o=-",
		"v a -o=x":            "v,a -o=x",
		"v -oa=b a":           "v,a -o=a=b",
		"--max=3 v a":         "v,a --max-age=3",
		"--max-age -3 v a":    "v,a --max-age=-3",
		"--w v a":             "v,a --wait=",
		"--name x v a":        "v,a --name=x",
		"--name=-x v a":       "v,a --name=-x",
		"--na x v a":          "ambiguous option: --na could match --name, --name-all",
		"--name -x v a":       "argument --name: expected one argument",
		"--name":              "argument --name: expected one argument",
		"v a --name --":       "argument --name: expected one argument",
		"--name - v a":        "v,a --name=-",
		"--name= v a":         "v,a --name=",
		"v -- --wait":         "v,--wait",
		"-- v -- a":           "v,--,a",
		"v -5":                "v,-5",
		"v -.5":               "v,-.5",
		"v -5x":               "the following arguments are required: name",
		"v a -5x":             "unrecognized arguments: -5x",
		"v -":                 "v,-",
		"":                    "the following arguments are required: vault, name",
		"v":                   "the following arguments are required: name",
		"--frob":              "the following arguments are required: vault, name",
		"v a --frob b":        "unrecognized arguments: --frob",
		"v a --wait=yes":      "argument --wait: ignored explicit argument 'yes'",
		"v a --max-age x":     "argument --max-age: invalid int value: 'x'",
		"v a --max-age 1.5":   "argument --max-age: invalid int value: '1.5'",
		"v a --max-age=1_000": "v,a --max-age=1_000",
	} {
		p := testParser()
		out, _, strays, err := p.parse(strings.Fields(given), false)
		if err == nil {
			err = p.finish(out, nil, strays, p)
		}
		got := ""
		if wrong := (*usageError)(nil); errors.As(err, &wrong) {
			got = wrong.text
		} else {
			got = strings.Join(out.args, ",")
			for _, o := range []string{"--wait", "--name", "-o", "--max-age"} {
				if out.has(o) {
					got += " " + o + "=" + out.given[o]
				}
			}
		}
		if got != want {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
	}
	out, _, _, err := testParser().parse([]string{"v", "-a b", "--max-age", " 7 "}, false)
	if err != nil || !slices.Equal(out.args, []string{"v", "-a b"}) || out.numbers["--max-age"] != 7 {
		t.Errorf("%v, %v", out, err)
	}
}

func TestRepr(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"a": `'a'`, "it's": `"it's"`, `it's "x"`: `'it\'s "x"'`, "ü": `'ü'`, "a\nb\t": `'a\nb\t'`, "\x1b[0m": `'\x1b[0m'`, "\xff": `'\xff'`, `\`: `'\\'`,
		"\u009b": `'\x9b'`, "\u202e": `'\u202e'`,
	} {
		if got := repr(s); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}

func TestBareKeys(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"SHA256E-s3--abc.tar": nil, "foo/SHA256E-s3--abc.tar": {"SHA256E-s3--abc.tar"}, "fooGPGHMACSHA1--ab": {"GPGHMACSHA1--ab"},
		"WORM-s2-m17--SHA256E-s3--x": nil, "p-URL--http&c%%x": {"URL--http&c%%x"}, "x/XFOO-s1--k": {"XFOO-s1--k"}, "plain--name": nil, "": nil,
		"a/SHA256E-s--x": nil, "MD5-s5--": nil, "a/SHA256-s5-S1-C2--x": {"SHA256-s5-S1-C2--x"}, "SHA3_256E--x": nil,
	} {
		if got := bareKeys(name); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func FuzzArgparse(f *testing.F) {
	for _, s := range []string{"v a", "--na x", "-o- v", "-- -x", "--max-age=1 v -5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		p := testParser()
		out, _, strays, err := p.parse(strings.Split(line, " "), false)
		if err == nil && p.finish(out, nil, strays, p) == nil && len(out.args) < 2 {
			t.Errorf("%q: %q", line, out.args)
		}
	})
}
