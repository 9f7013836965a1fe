package glacierserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
)

// Policies, of vaults' access and of their locks, in the language of IAM. There is one account here, and it
// may do whatever nobody denies; so Deny statements are all that counts, and Allow statements are only read.
// What cannot be understood is refused when a policy is set: a lock that is not enforced would be worse than none.

type policy struct {
	Version   string
	Id        string
	Statement statements
}

type statements []statement

type statement struct {
	Sid                     string
	Effect                  string
	Principal, NotPrincipal principals
	Action, NotAction       oneOrMore
	Resource, NotResource   oneOrMore
	Condition               map[string]map[string]values
}

// UnmarshalJSON takes one statement for a list of one.
func (s *statements) UnmarshalJSON(text []byte) error {
	text = bytes.TrimSpace(text)
	if len(text) > 0 && text[0] == '[' {
		return strict(text, (*[]statement)(s))
	}
	*s = make(statements, 1)
	return strict(text, &(*s)[0])
}

type oneOrMore []string

// UnmarshalJSON takes one string for a list of one.
func (o *oneOrMore) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '[' {
		return json.Unmarshal(text, (*[]string)(o))
	}
	*o = make(oneOrMore, 1)
	return json.Unmarshal(text, &(*o)[0])
}

type principals []string

// UnmarshalJSON reads "*" and {"AWS": …}; of other kinds of principals none is ever here.
func (p *principals) UnmarshalJSON(text []byte) error {
	var all string
	if json.Unmarshal(text, &all) == nil {
		if all != "*" {
			return fmt.Errorf("principal %q: neither * nor an object", all)
		}
		*p = principals{"*"}
		return nil
	}
	var kinds map[string]oneOrMore
	if err := json.Unmarshal(text, &kinds); err != nil {
		return err
	}
	*p = append(principals{}, kinds["AWS"]...)
	return nil
}

type values []string

// UnmarshalJSON takes strings, numbers and booleans, one or several.
func (v *values) UnmarshalJSON(text []byte) error {
	var list []json.RawMessage
	if json.Unmarshal(text, &list) != nil {
		list = []json.RawMessage{text}
	}
	for _, raw := range list {
		var s string
		if json.Unmarshal(raw, &s) != nil {
			s = string(bytes.TrimSpace(raw))
			if s == "" || strings.ContainsAny(s[:1], "{[") || s == "null" {
				return fmt.Errorf("%s is no value of a condition", s)
			}
		}
		*v = append(*v, s)
	}
	return nil
}

func strict(text []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

func parsePolicy(text string) (*policy, error) {
	var p policy
	if err := strict([]byte(text), &p); err != nil {
		return nil, err
	}
	if len(p.Statement) == 0 {
		return nil, errors.New("it has no statement")
	}
	for _, s := range p.Statement {
		if err := s.check(); err != nil {
			return nil, err
		}
	}
	return &p, nil
}

func (s *statement) check() error {
	switch {
	case s.Effect != "Allow" && s.Effect != "Deny":
		return fmt.Errorf("effect %q is neither Allow nor Deny", s.Effect)
	case (s.Principal == nil) == (s.NotPrincipal == nil):
		return errors.New("a statement needs Principal")
	case (s.Action == nil) == (s.NotAction == nil):
		return errors.New("a statement needs Action")
	case (s.Resource == nil) == (s.NotResource == nil):
		return errors.New("a statement needs Resource")
	}
	for _, a := range slices.Concat(s.Action, s.NotAction) {
		if !knownAction(a) {
			return fmt.Errorf("action %q is none of Glacier's", a)
		}
	}
	for op, keys := range s.Condition {
		for key, want := range keys {
			if len(want) == 0 {
				return fmt.Errorf("condition %s on %s without a value", op, key)
			}
			for _, w := range want {
				if _, err := compare(op, w, w); err != nil {
					return fmt.Errorf("condition %s on %s: %w", op, key, err)
				}
			}
			if !knownKey(key) {
				return fmt.Errorf("condition key %s is not supported", key)
			}
		}
	}
	return nil
}

func knownAction(pattern string) bool {
	if pattern == "*" {
		return true
	}
	return slices.ContainsFunc(Operations(), func(name string) bool { return wildFold(pattern, "glacier:"+name) })
}

func knownKey(key string) bool {
	k := strings.ToLower(key)
	return strings.HasPrefix(k, "glacier:resourcetag/") || slices.Contains([]string{
		"glacier:archiveageindays", "aws:securetransport", "aws:sourceip", "aws:currenttime", "aws:epochtime",
		"aws:principalarn", "aws:principalaccount", "aws:username", "aws:useragent",
	}, k)
}

// authorize asks the vault's policies. a is the archive that the request is about, if it is about one.
func (q *request) authorize(a *coldstore.Archive) error {
	st := q.state()
	texts := []string{}
	if st.AccessPolicy != nil && !strings.HasSuffix(q.op.name, "VaultAccessPolicy") { // who owns a vault is never locked out
		texts = append(texts, *st.AccessPolicy)
	}
	if l := st.Lock.inForce(q.now); l != nil && q.op.name != "AbortVaultLock" && q.op.name != "CompleteVaultLock" {
		texts = append(texts, l.Policy)
	}
	for _, text := range texts {
		p, err := parsePolicy(text)
		if err != nil {
			return err // it was checked when it was set
		}
		for _, s := range p.Statement {
			if s.Effect == "Deny" && q.concerns(&s, st.Tags, a) {
				return denied("User: %s is not authorized to perform: glacier:%s on resource: %s with an explicit deny", q.principal(), q.op.name, q.arn(q.vaultName))
			}
		}
	}
	return nil
}

func (q *request) principal() string {
	if q.user == "" {
		return "arn:aws:iam::" + q.o.Account + ":root"
	}
	return "arn:aws:iam::" + q.o.Account + ":user/" + q.user
}

// concerns says whether a statement is about this request.
func (q *request) concerns(s *statement, tags map[string]string, a *coldstore.Archive) bool {
	me := func(p string) bool {
		return p == "*" || p == q.o.Account || p == "arn:aws:iam::"+q.o.Account+":root" || p == q.principal()
	}
	action := func(p string) bool { return wildFold(p, "glacier:"+q.op.name) }
	resource := func(p string) bool { return wild(p, q.arn(q.vaultName)) }
	if s.Principal != nil && !slices.ContainsFunc(s.Principal, me) || slices.ContainsFunc(s.NotPrincipal, me) ||
		s.Action != nil && !slices.ContainsFunc(s.Action, action) || slices.ContainsFunc(s.NotAction, action) ||
		s.Resource != nil && !slices.ContainsFunc(s.Resource, resource) || slices.ContainsFunc(s.NotResource, resource) {
		return false
	}
	for op, keys := range s.Condition {
		for key, want := range keys {
			have, there := q.conditionValue(key, tags, a)
			if !holds(op, want, have, there) {
				return false
			}
		}
	}
	return true
}

// conditionValue is what a condition key stands for here.
func (q *request) conditionValue(key string, tags map[string]string, a *coldstore.Archive) (string, bool) {
	k := strings.ToLower(key)
	if strings.HasPrefix(k, "glacier:resourcetag/") {
		value, there := tags[key[len("glacier:ResourceTag/"):]]
		return value, there
	}
	switch k {
	case "glacier:archiveageindays":
		if a == nil {
			return "", false
		}
		return strconv.FormatInt(int64(q.now.Sub(a.Created)/inventoryDay), 10), true
	case "aws:securetransport":
		return strconv.FormatBool(q.r.TLS != nil), true
	case "aws:sourceip":
		host, _, err := net.SplitHostPort(q.r.RemoteAddr)
		return host, err == nil
	case "aws:currenttime":
		return stamp(q.now), true
	case "aws:epochtime":
		return strconv.FormatInt(q.now.Unix(), 10), true
	case "aws:principalarn":
		return q.principal(), true
	case "aws:principalaccount":
		return q.o.Account, true
	case "aws:username":
		return q.user, q.user != ""
	case "aws:useragent":
		return q.r.UserAgent(), true
	}
	return "", false
}

// holds says whether a condition is true: of several values one must do; of a negated operator none may.
func holds(op string, want values, have string, there bool) bool {
	op = strings.TrimPrefix(strings.TrimPrefix(op, "ForAnyValue:"), "ForAllValues:")
	base, ifExists := strings.CutSuffix(op, "IfExists")
	if strings.EqualFold(base, "Null") {
		return slices.ContainsFunc(want, func(w string) bool { return strings.EqualFold(w, strconv.FormatBool(!there)) })
	}
	negated := strings.Contains(base, "Not")
	if !there {
		return ifExists || negated
	}
	for _, w := range want {
		ok, err := compare(base, w, have)
		switch {
		case err != nil:
			return false // what is there is of another kind
		case negated && !ok:
			return false
		case !negated && ok:
			return true
		}
	}
	return negated
}

// compare compares what a policy says with what is there. A negated operator's result is that of the whole: false
// when they are equal.
func compare(op, want, have string) (bool, error) {
	op = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(op, "ForAnyValue:"), "ForAllValues:"), "IfExists")
	switch op {
	case "StringEquals":
		return want == have, nil
	case "StringNotEquals":
		return want != have, nil
	case "StringEqualsIgnoreCase":
		return strings.EqualFold(want, have), nil
	case "StringNotEqualsIgnoreCase":
		return !strings.EqualFold(want, have), nil
	case "StringLike", "ArnLike", "ArnEquals":
		return wild(want, have), nil
	case "StringNotLike", "ArnNotLike", "ArnNotEquals":
		return !wild(want, have), nil
	case "Bool", "Null":
		if _, err := strconv.ParseBool(want); err != nil {
			return false, fmt.Errorf("%q is neither true nor false", want)
		}
		return strings.EqualFold(want, have), nil
	case "IpAddress", "NotIpAddress":
		in, err := inNetwork(want, have)
		return in == (op == "IpAddress"), err
	}
	if rest, is := strings.CutPrefix(op, "Numeric"); is {
		w, err1 := strconv.ParseFloat(want, 64)
		h, err2 := strconv.ParseFloat(have, 64)
		if err := errors.Join(err1, err2); err != nil {
			return false, err
		}
		return order(rest, h, w)
	}
	if rest, is := strings.CutPrefix(op, "Date"); is {
		w, err1 := parseDate(want)
		h, err2 := parseDate(have)
		if err := errors.Join(err1, err2); err != nil {
			return false, err
		}
		return order(rest, float64(h.UnixMilli()), float64(w.UnixMilli()))
	}
	return false, errors.New("unknown operator")
}

func order(how string, have, want float64) (bool, error) {
	switch how {
	case "Equals":
		return have == want, nil
	case "NotEquals":
		return have != want, nil
	case "LessThan":
		return have < want, nil
	case "LessThanEquals":
		return have <= want, nil
	case "GreaterThan":
		return have > want, nil
	case "GreaterThanEquals":
		return have >= want, nil
	}
	return false, errors.New("unknown operator")
}

func parseDate(s string) (time.Time, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Unix(n, 0), nil
	}
	return date("date", s)
}

func inNetwork(network, address string) (bool, error) {
	if !strings.Contains(network, "/") {
		a, err := netip.ParseAddr(network)
		if err != nil {
			return false, err
		}
		network = netip.PrefixFrom(a, a.BitLen()).String()
	}
	p, err := netip.ParsePrefix(network)
	if err != nil {
		return false, err
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		return address == network, nil // the policy's own check of its value
	}
	return p.Contains(a.Unmap()), nil
}

// wild says whether s fits a pattern in which * stands for any characters and ? for one.
func wild(pattern, s string) bool {
	p, at, star, from := 0, 0, -1, 0
	for at < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, at
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[at]):
			p++
			at++
		case star >= 0:
			from++
			p, at = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

func wildFold(pattern, s string) bool { return wild(strings.ToLower(pattern), strings.ToLower(s)) }
