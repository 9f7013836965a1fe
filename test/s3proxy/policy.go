package s3proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
)

// A Policy is an IAM policy as AWS writes it: what no statement allows is denied, and
// what one denies is denied whatever the others say.
type Policy struct{ statements []statement }

type statement struct {
	Effect    string
	Action    stringOrList
	Resource  stringOrList
	Condition map[string]map[string]stringOrList
}

// stringOrList is what stands in policies: one string or a list of them.
type stringOrList []string

func (s *stringOrList) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*s = []string{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(s))
}

// operators are the conditions that are understood.
var operators = []string{"StringEquals", "StringNotEquals", "StringLike", "StringNotLike", "Null", "Bool"}

// ParsePolicy reads a policy document. It refuses what it does not understand, so that a test is not
// held by less than what the document says.
func ParsePolicy(document string) (*Policy, error) {
	var d struct {
		Version   string
		ID        string `json:"Id"`
		Statement []struct {
			Sid string
			statement
		}
	}
	dec := json.NewDecoder(strings.NewReader(document))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if d.Version != "2012-10-17" {
		return nil, fmt.Errorf("policy: version %q", d.Version)
	}
	p := &Policy{}
	for i, s := range d.Statement {
		if s.Effect != "Allow" && s.Effect != "Deny" || len(s.Action) == 0 || len(s.Resource) == 0 {
			return nil, fmt.Errorf("policy: statement %d: Effect, Action and Resource are needed", i)
		}
		for op := range s.Condition {
			if !slices.Contains(operators, strings.TrimSuffix(op, "IfExists")) {
				return nil, fmt.Errorf("policy: statement %d: condition %s is not understood", i, op)
			}
		}
		p.statements = append(p.statements, s.statement)
	}
	return p, nil
}

// allows decides about one action. A nil policy allows everything.
func (p *Policy) allows(action, resource string, r *http.Request) bool {
	if p == nil {
		return true
	}
	allowed := false
	for _, s := range p.statements {
		fits := slices.ContainsFunc(s.Action, func(a string) bool { return like(strings.ToLower(a), strings.ToLower(action)) }) &&
			slices.ContainsFunc(s.Resource, func(a string) bool { return like(a, resource) }) && s.holds(r)
		if fits && s.Effect == "Deny" {
			return false
		}
		allowed = allowed || fits
	}
	return allowed
}

// like matches the wildcards of policies: * and ? for any characters, slashes among them.
func like(pattern, s string) bool {
	// path.Match's star stops at slashes, and it knows classes; neither is so in policies.
	clean := func(s string) string { return strings.ReplaceAll(s, "/", "\x01") }
	escaped := strings.NewReplacer(`\`, `\\`, `[`, `\[`).Replace(clean(pattern))
	ok, err := path.Match(escaped, clean(s))
	return err == nil && ok
}

func (s statement) holds(r *http.Request) bool {
	for operator, keys := range s.Condition {
		op, ifExists := strings.CutSuffix(operator, "IfExists")
		for key, want := range keys {
			got, has := contextValue(key, r)
			if op == "Null" {
				if (want[0] == "true") == has {
					return false
				}
				continue
			}
			if !has && (ifExists || strings.Contains(op, "Not")) {
				continue
			}
			if !has || slices.ContainsFunc(want, func(w string) bool {
				if strings.Contains(op, "Like") {
					return like(w, got)
				}
				return w == got
			}) == strings.Contains(op, "Not") {
				return false
			}
		}
	}
	return true
}

// contextValue is what a condition key stands for in a request.
func contextValue(key string, r *http.Request) (string, bool) {
	q := r.URL.Query()
	header := func(name string) (string, bool) { v := r.Header.Get(name); return v, v != "" }
	switch k := strings.ToLower(key); k {
	case "s3:prefix", "s3:delimiter", "s3:max-keys":
		name := strings.TrimPrefix(k, "s3:")
		return q.Get(name), q.Has(name)
	case "aws:securetransport":
		return fmt.Sprint(r.TLS != nil), true
	case "s3:if-none-match", "s3:if-match":
		return header(strings.TrimPrefix(k, "s3:"))
	default:
		if name, ok := strings.CutPrefix(k, "s3:"); ok && strings.HasPrefix(name, "x-amz-") {
			return header(name)
		}
	}
	return "", false
}
