package glacierserver

import (
	"fmt"
	"os"
	"strings"

	"github.com/firn-backup/firn/internal/failure"
)

// Key is one pair of keys that requests may be signed with.
type Key struct {
	Profile string // the section of the file
	ID      string
	Secret  string
	Token   string // of a session; "" when there is none
}

// ReadKeys reads a file of the AWS shared-credentials form:
//
//	[profile]
//	aws_access_key_id = …
//	aws_secret_access_key = …
//	aws_session_token = …        (optional)
//
// Other names are ignored. Errors name lines, never what stands there.
func ReadKeys(path string) ([]Key, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	keys, err := parseKeys(string(text))
	if err != nil {
		return nil, failure.Errorf(failure.Usage, "keys file %s: %w", path, err)
	}
	return keys, nil
}

func parseKeys(text string) ([]Key, error) {
	var keys []Key
	var at *Key
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
			continue
		case line[0] == '[':
			name, ok := strings.CutSuffix(line[1:], "]")
			if !ok {
				return nil, fmt.Errorf("line %d: a section without its ]", n)
			}
			keys = append(keys, Key{Profile: strings.TrimSpace(name)})
			at = &keys[len(keys)-1]
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("line %d: neither [profile] nor name = value", n)
		}
		if at == nil {
			return nil, fmt.Errorf("line %d: before the first [profile]", n)
		}
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "aws_access_key_id":
			at.ID = value
		case "aws_secret_access_key":
			at.Secret = value
		case "aws_session_token", "aws_security_token":
			at.Token = value
		}
	}
	seen := map[string]bool{}
	for _, k := range keys {
		if k.ID == "" || k.Secret == "" {
			return nil, fmt.Errorf("profile %q: aws_access_key_id or aws_secret_access_key is missing", k.Profile)
		}
		if seen[k.ID] {
			return nil, fmt.Errorf("profile %q: its aws_access_key_id is another's too", k.Profile)
		}
		seen[k.ID] = true
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("no [profile] in it")
	}
	return keys, nil
}
