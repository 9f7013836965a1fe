// Package command tells of events through programs on this machine: any program, or the
// mailer that cron uses too. What is told goes by environment and standard input, never
// by arguments, which all users can see.
package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/notify"
	"github.com/firn-backup/firn/internal/program"
)

// DefaultTimeout is how long a program may take.
const DefaultTimeout = time.Minute

// Options say which program. Argv is needed.
type Options struct {
	Argv    []string
	Timeout time.Duration     // 0: DefaultTimeout
	Line    func(line string) // is told the program's output; nil: nobody
}

// Command is a notify.Notifier that runs a program for each event. It finds the event as JSON on its
// standard input, and FIRN_EVENT, FIRN_SET, FIRN_HOST, FIRN_RUN, FIRN_EXIT and FIRN_SUMMARY in
// its environment.
type Command struct{ o Options }

var _ notify.Notifier = (*Command)(nil)

// New makes one.
func New(o Options) (*Command, error) {
	if len(o.Argv) == 0 || o.Argv[0] == "" {
		return nil, errors.New("no program is named")
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	return &Command{o}, nil
}

// Notify runs the program.
func (c *Command) Notify(ctx context.Context, e notify.Event) error {
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	err = program.Run(ctx, program.Options{
		Argv: c.o.Argv, Timeout: c.o.Timeout, Line: c.o.Line, Stdin: bytes.NewReader(append(body, '\n')),
		Env: []string{
			"FIRN_EVENT=" + string(e.Kind), "FIRN_SET=" + e.Set, "FIRN_HOST=" + e.Host, "FIRN_RUN=" + e.Run,
			"FIRN_EXIT=" + strconv.Itoa(e.Code), "FIRN_SUMMARY=" + oneLine(e.Summary),
		},
	})
	if err != nil {
		return fmt.Errorf("tell of %s by %w", e.Kind, err)
	}
	return nil
}

func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' }), " ")
}

// MailOptions say whom to write to. To is needed.
type MailOptions struct {
	To, From string // addresses as RFC 5322 has them; From: the mailer's choice

	// Sendmail is the mailer: it reads a message, finds the recipients in its header (-t), and takes a line
	// with a dot for what it is (-i). Empty: sendmail, of PATH or of /usr/sbin and /usr/lib.
	Sendmail string
	Timeout  time.Duration // 0: DefaultTimeout
	Line     func(line string)
}

// Mail is a notify.Notifier that writes a mail for each event.
type Mail struct {
	o        MailOptions
	to, from string // as they stand in the header
}

var _ notify.Notifier = (*Mail)(nil)

// CheckAddress says what is wrong with an address: NAME <me@example.com>, me@example.com, or
// a user of this machine.
func CheckAddress(s string) error {
	_, err := address(s)
	return err
}

// address is an address as it stands in a header.
func address(s string) (string, error) {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-' || r == '.')
	}) {
		return s, nil // the mailer knows where they read their mail
	}
	a, err := mail.ParseAddress(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return "", fmt.Errorf("%q is no mail address", s)
	}
	return a.String(), nil
}

// NewMail makes one.
func NewMail(o MailOptions) (*Mail, error) {
	m := &Mail{o: o}
	var err error
	if m.to, err = address(o.To); err != nil {
		return nil, err
	}
	if o.From != "" {
		if m.from, err = address(o.From); err != nil {
			return nil, err
		}
	}
	if m.o.Timeout == 0 {
		m.o.Timeout = DefaultTimeout
	}
	if m.o.Sendmail == "" {
		m.o.Sendmail = "sendmail"
		for _, p := range []string{"/usr/sbin/sendmail", "/usr/lib/sendmail"} { // often not in PATH
			if _, err := os.Stat(p); err == nil {
				m.o.Sendmail = p
				break
			}
		}
	}
	return m, nil
}

// Notify hands a message to the mailer.
func (m *Mail) Notify(ctx context.Context, e notify.Event) error {
	err := program.Run(ctx, program.Options{
		Argv: []string{m.o.Sendmail, "-t", "-i"}, Timeout: m.o.Timeout, Line: m.o.Line, Stdin: bytes.NewReader(m.message(e)),
	})
	if err != nil {
		return fmt.Errorf("mail of %s: %w", e.Kind, err)
	}
	return nil
}

// message is the event as a mail: RFC 5322, the header in ASCII, the text quoted-printable.
func (m *Mail) message(e notify.Event) []byte {
	var b bytes.Buffer
	head := func(k, v string) { b.WriteString(k + ": " + v + "\n") }
	if m.from != "" {
		head("From", m.from)
	}
	head("To", m.to)
	head("Subject", mime.QEncoding.Encode("utf-8", oneLine(e.Subject())))
	head("Date", e.At.Format(time.RFC1123Z))
	head("Auto-Submitted", "auto-generated") // RFC 3834: no vacation notices, please
	head("MIME-Version", "1.0")
	head("Content-Type", "text/plain; charset=utf-8")
	head("Content-Transfer-Encoding", "quoted-printable")
	b.WriteByte('\n')
	q := quotedprintable.NewWriter(&b)
	_, _ = q.Write([]byte(e.Text())) // a buffer takes all
	_ = q.Close()
	// The mailer is given the line ends of this system, and makes those of mail itself.
	return bytes.ReplaceAll(b.Bytes(), []byte("\r\n"), []byte("\n"))
}
