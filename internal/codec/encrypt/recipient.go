package encrypt

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/plugin"

	"github.com/firn-backup/firn/internal/failure"
)

// maxKeyFile bounds files of keys and recipients, in bytes.
const maxKeyFile = 16 << 20

func ageRecipients(o EncryptOptions) ([]age.Recipient, error) {
	ui := pluginUI(o.Passphrase, o.Say)
	var texts []string
	var recipients []age.Recipient
	add := func(where, text string) error {
		if slices.Contains(texts, text) {
			return nil
		}
		r, err := parseRecipient(text, ui)
		if err != nil {
			return failure.Errorf(failure.Usage, "%s: %w", where, err)
		}
		texts, recipients = append(texts, text), append(recipients, r)
		return nil
	}
	for i, text := range o.Recipients {
		if err := add(fmt.Sprintf("recipient %d", i+1), strings.TrimSpace(text)); err != nil {
			return nil, err
		}
	}
	for _, path := range o.RecipientFiles {
		b, err := readKeyFile(path)
		if err != nil {
			return nil, fmt.Errorf("recipients file: %w", err)
		}
		found := false
		for n, line := range numberedLines(b) {
			found = true
			if err := add(fmt.Sprintf("recipients file %s: line %d", path, n), line); err != nil {
				return nil, err
			}
		}
		if !found {
			return nil, failure.Errorf(failure.Usage, "recipients file %s: holds no recipient", path)
		}
	}
	return recipients, nil
}

// parseRecipient never repeats text in its errors: it may be a secret that got
// into the wrong place.
func parseRecipient(text string, ui *plugin.ClientUI) (age.Recipient, error) {
	var r age.Recipient
	var err error
	upper := strings.ToUpper(text)
	switch {
	case strings.HasPrefix(upper, "AGE-SECRET-KEY-"), strings.HasPrefix(upper, "AGE-PLUGIN-"), strings.HasPrefix(text, "-----BEGIN"):
		return nil, errors.New("is a private key, and must be a public one")
	case strings.HasPrefix(text, "age1pq1"):
		r, err = age.ParseHybridRecipient(text)
	case strings.HasPrefix(text, "age1") && strings.Count(text, "1") > 1:
		r, err = plugin.NewRecipient(text, ui)
	case strings.HasPrefix(text, "age1"):
		r, err = age.ParseX25519Recipient(text)
	case strings.HasPrefix(text, "ssh-"):
		r, err = agessh.ParseRecipient(text)
	default:
		return nil, errors.New("is no age recipient: want age1…, ssh-ed25519 … or ssh-rsa …")
	}
	if err != nil {
		kind, _, _ := strings.Cut(text, "1")
		if strings.HasPrefix(text, "ssh-") {
			kind, _, _ = strings.Cut(text, " ")
		}
		return nil, fmt.Errorf("is a malformed %s recipient", kind)
	}
	return r, nil
}

// numberedLines yields the lines that are neither empty nor comments.
func numberedLines(b []byte) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		s := bufio.NewScanner(bytes.NewReader(b))
		s.Buffer(nil, maxKeyFile)
		for n := 1; s.Scan(); n++ {
			line := strings.TrimSpace(s.Text())
			if line != "" && !strings.HasPrefix(line, "#") && !yield(n, line) {
				return
			}
		}
	}
}

func readKeyFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s: %d bytes are too many", path, info.Size())
	}
	return os.ReadFile(path)
}

// pluginUI lets an age plugin ask and speak.
func pluginUI(ask func(prompt string) ([]byte, error), say func(string)) *plugin.ClientUI {
	ui := &plugin.ClientUI{}
	if say != nil {
		ui.DisplayMessage = func(name, message string) error {
			say(fmt.Sprintf("age-plugin-%s: %s", name, message))
			return nil
		}
		ui.WaitTimer = func(name string) { say(fmt.Sprintf("waiting for age-plugin-%s", name)) }
	}
	if ask != nil {
		ui.RequestValue = func(name, prompt string, _ bool) (string, error) {
			b, err := ask(fmt.Sprintf("age-plugin-%s: %s", name, prompt))
			return string(b), err
		}
	}
	return ui
}
