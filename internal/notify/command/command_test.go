package command

import (
	"io"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/notify"
)

func event() notify.Event {
	return notify.Event{Kind: notify.Failure, Set: "Fotos für Ümit\r\nBcc: evil@example.com", Host: "nb", Run: "01R",
		At: time.Date(2026, 11, 1, 2, 3, 4, 0, time.UTC), Code: 13, Summary: "two\nlines", Details: []string{".", "größer"}}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := New(Options{Argv: []string{"sh", "-c", `cat > "$1/in"; env | grep -E '^FIRN_(EVENT|EXIT|HOST|RUN|SET|SUMMARY)=' | sort > "$1/env"`, "x", dir}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Notify(t.Context(), event()); err != nil {
		t.Fatal(err)
	}
	in, err := os.ReadFile(filepath.Join(dir, "in"))
	if err != nil || !strings.HasPrefix(string(in), `{"event":"failure","set":"Fotos für Ümit\r\nBcc`) {
		t.Errorf("%s, %v", in, err)
	}
	env, err := os.ReadFile(filepath.Join(dir, "env"))
	if err != nil || !strings.Contains(string(env), "FIRN_EVENT=failure\nFIRN_EXIT=13\nFIRN_HOST=nb\nFIRN_RUN=01R\n") || !strings.Contains(string(env), "FIRN_SUMMARY=two lines\n") {
		t.Errorf("%s, %v", env, err)
	}
	c, err = New(Options{Argv: []string{"sh", "-c", "exit 3"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Notify(t.Context(), event()); err == nil || err.Error() != "tell of failure by sh: exit status 3" {
		t.Error(err)
	}
	if _, err := New(Options{}); err == nil {
		t.Error("no program, and no error")
	}
}

func TestMail(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mailer := filepath.Join(dir, "sendmail")
	if err := os.WriteFile(mailer, []byte("#!/bin/sh\necho \"$@\" > "+dir+"/args; cat > "+dir+"/mail\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := NewMail(MailOptions{To: "Jörg <me@example.com>", From: "root@nb", Sendmail: mailer})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Notify(t.Context(), event()); err != nil {
		t.Fatal(err)
	}
	args, err := os.ReadFile(filepath.Join(dir, "args"))
	if err != nil || string(args) != "-t -i\n" {
		t.Errorf("%q, %v", args, err)
	}
	f, err := os.Open(filepath.Join(dir, "mail"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	msg, err := mail.ReadMessage(f)
	if err != nil {
		t.Fatal(err)
	}
	to, err := msg.Header.AddressList("To")
	if err != nil || len(to) != 1 || to[0].Name != "Jörg" || to[0].Address != "me@example.com" {
		t.Errorf("To: %v, %v", to, err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject"))
	if err != nil || subject != "firn: backup of Fotos für Ümit Bcc: evil@example.com failed (nb)" {
		t.Errorf("Subject: %q, %v", subject, err)
	}
	if msg.Header.Get("Bcc") != "" {
		t.Error("a set's name has become a header")
	}
	body, err := io.ReadAll(quotedprintable.NewReader(msg.Body))
	if err != nil || !strings.Contains(string(body), "größer") {
		t.Errorf("%s, %v", body, err)
	}
	for _, bad := range []MailOptions{{}, {To: "no body"}, {To: "a@b", From: "x y"}, {To: "a@b\nBcc: c@d"}} {
		if _, err := NewMail(bad); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}
