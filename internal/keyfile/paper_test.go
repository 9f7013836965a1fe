package keyfile

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/failure"
)

func TestPaper(t *testing.T) {
	t.Parallel()
	k := newKey(t)
	paper := k.Paper()
	t.Log(paper)
	for _, line := range strings.Split(paper, "\n") {
		if len(line) > 100 {
			t.Errorf("too long for a page: %s", line)
		}
	}
	identity, seed := secretsOf(k)[0], secretsOf(k)[1]
	var onlySecrets []string
	for _, line := range strings.Split(paper, "\n") {
		if strings.Contains(line, "  # ") {
			onlySecrets = append(onlySecrets, line)
		}
	}
	secrets := strings.Join(onlySecrets, "\n")
	noNames := regexp.MustCompile(`(?m)^\s*(identity|signing) \d+`).ReplaceAllString(secrets, "")
	noChecks := regexp.MustCompile(`\s*# ..`).ReplaceAllString(secrets, "")
	confused := regexp.MustCompile(`(?m)^(.*-1|\s*\w+ \d+ )(.*)#`).ReplaceAllStringFunc(secrets, func(s string) string {
		m := regexp.MustCompile(`^(.*-1|\s*\w+ \d+ )(.*)#`).FindStringSubmatch(s)
		return m[1] + strings.NewReplacer("0", "O", "8", "B", "L", "1").Replace(m[2]) + "#"
	})
	for name, text := range map[string]string{
		"whole": paper, "windows": strings.ReplaceAll(paper, "\n", "\r\n"), "small letters": strings.ToLower(paper), "capitals": strings.ToUpper(paper),
		"only the secrets": secrets, "no names": noNames, "no checks": noChecks,
		"neither": regexp.MustCompile(`\s*# ..`).ReplaceAllString(noNames, ""), "no spaces": identity + "\n" + seed,
		"confused letters": confused, "odd spaces": strings.ReplaceAll(noChecks, " ", "  "), "empty lines": strings.ReplaceAll(secrets, "\n", "\n\n"),
		"prefix with l": strings.Replace(strings.ToLower(secrets), "key-1", "key-l", 1),
	} {
		got, err := ParsePaper(text)
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
			continue
		}
		if got.Recipient() != k.Recipient() || !got.Signer().Equal(k.Signer()) {
			t.Errorf("%s: another key", name)
		}
	}
	got, err := ParsePaper(identity)
	if err != nil || got.Recipient() != k.Recipient() || got.Signer() != nil {
		t.Errorf("identity alone: %v %v", got, err)
	}
	for name, text := range map[string]string{"empty": "", "text": "hello\nidentity of mine\n", "seed alone": seed, "identity cut": identity[:60], "seed cut": identity + "\n" + seed[:50],
		"two seeds": secrets + "\n" + seed} {
		if _, err := ParsePaper(text); failure.KindOf(err) != failure.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPaperMistyped: a wrong character in a secret is found, and its line named.
func TestPaperMistyped(t *testing.T) {
	t.Parallel()
	k := newKey(t)
	lines := strings.Split(k.Paper(), "\n")
	var at []int
	for i, line := range lines {
		if strings.Contains(line, "  # ") {
			at = append(at, i)
		}
	}
	named := 0
	rapid.Check(t, func(rt *rapid.T) {
		i := rapid.SampledFrom(at).Draw(rt, "line")
		line := []byte(lines[i])
		start := strings.LastIndex(lines[i], "-1") + 2
		if start == 1 {
			start = 14
		}
		j := rapid.IntRange(start, strings.Index(lines[i], "  # ")-1).Draw(rt, "column")
		c := rapid.SampledFrom([]byte(strings.ToUpper(bech32Charset))).Draw(rt, "character")
		if line[j] == ' ' || line[j] == c {
			return
		}
		line[j] = c
		changed := append([]string{}, lines...)
		changed[i] = string(line)
		_, err := ParsePaper(strings.Join(changed, "\n"))
		if failure.KindOf(err) != failure.Usage {
			rt.Fatalf("%q for %q: %v", line, lines[i], err)
		}
		if strings.Contains(err.Error(), fmt.Sprintf("line %d", i+1)) {
			named++
		}
	})
	if named < 50 {
		t.Errorf("the line is named only %d times of 100", named)
	}
}

func TestPaperOtherIdentities(t *testing.T) {
	t.Parallel()
	pq, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	k := newKey(t)
	text := strings.Join([]string{k.in().lines[0], pq.String(), plugin.EncodeIdentity("yubikey-1b", []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10})}, "\n")
	k, err = Import(text)
	if err != nil {
		t.Fatal(err)
	}
	if k, err = k.WithNewSigner(nil); err != nil {
		t.Fatal(err)
	}
	got, err := ParsePaper(k.Paper())
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got.in().lines) != fmt.Sprint(k.in().lines) || !got.Signer().Equal(k.Signer()) {
		t.Error("another key")
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	k := newKey(t)
	for _, text := range []string{k.in().text(), k.Paper(), strings.Join(secretsOf(k), "\n")} {
		got, err := Import(text)
		if err != nil || !got.Signer().Equal(k.Signer()) || got.Recipient() != k.Recipient() {
			t.Errorf("%v, %v", got, err)
		}
	}
	if _, err := Import(strings.Replace(k.in().text(), k.SigningKey(), newKey(t).SigningKey(), 1)); failure.KindOf(err) != failure.Damaged {
		t.Errorf("changed key file: %v", err)
	}
}

// TestBech32 uses the vectors of BIP 173, and age's own encoder.
func TestBech32(t *testing.T) {
	t.Parallel()
	for prefix, text := range map[string]string{"A": "A12UEL5L", "abcdef": "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw", "?": "?1ezyfcl",
		"split": "split1checkupstagehandshakeupstreamerranterredcaperred2y9e3w"} {
		data, err := bech32Decode(prefix, text)
		if prefix == "split" || prefix == "abcdef" {
			if err != nil || bech32Encode(prefix, data) != text {
				t.Errorf("%s: %x, %v", text, data, err)
			}
		} else if prefix == "A" && (err != nil || len(data) > 0) {
			t.Errorf("%s: %x, %v", text, data, err)
		}
	}
	for _, bad := range []string{"A1G7SGD8", "a12UEL5L", "A12UEL5", "A12UEL5M", "A1", "1QZZFHEE", "A12UEL5\x80"} {
		if _, err := bech32Decode("A", bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		data := rapid.SliceOf(rapid.Byte()).Draw(rt, "data")
		if got, want := bech32Encode("AGE-PLUGIN-X-", data), plugin.EncodeIdentity("x", data); got != want {
			rt.Fatalf("%s, age says %s", got, want)
		}
		if got, want := bech32Encode("age1x", data), plugin.EncodeRecipient("x", data); got != want {
			rt.Fatalf("%s, age says %s", got, want)
		}
		back, err := bech32Decode("AGE-PLUGIN-X-", plugin.EncodeIdentity("x", data))
		if err != nil || string(back) != string(data) {
			rt.Fatalf("%x, %v", back, err)
		}
	})
}
