package glaciervault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/awsconn"
	"github.com/firn-backup/firn/internal/failure"
)

// snsOf is an account whose SNS answers so. The forms are those of the service's API reference.
func snsOf(t *testing.T, answer func(w http.ResponseWriter, action string, form map[string][]string)) *Account {
	t.Helper()
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		answer(w, r.Form.Get("Action"), r.Form)
	}))
	t.Cleanup(h.Close)
	cfg := aws.Config{Region: "eu-west-1", BaseEndpoint: &h.URL, HTTPClient: h.Client(),
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "")}
	return &Account{cfg: cfg, id: "-"}
}

func result(w http.ResponseWriter, action, body string) {
	fmt.Fprintf(w, `<%sResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><%sResult>%s</%sResult></%sResponse>`, action, action, body, action, action)
}

// TestTopicPages: all pages are read, what is pending is known as such, and a page that leads to itself ends.
func TestTopicPages(t *testing.T) {
	t.Parallel()
	a := snsOf(t, func(w http.ResponseWriter, action string, form map[string][]string) {
		next := ""
		if len(form["NextToken"]) > 0 {
			next = form["NextToken"][0]
		}
		switch {
		case action == "ListTopics" && next == "":
			result(w, action, "<Topics><member><TopicArn>arn:aws:sns:eu-west-1:123456789012:a</TopicArn></member></Topics><NextToken>2</NextToken>")
		case action == "ListTopics":
			result(w, action, "<Topics><member><TopicArn>arn:aws:sns:eu-west-1:123456789012:b</TopicArn></member></Topics>")
		case next == "": // of one topic, and of all
			result(w, action, "<Subscriptions><member><TopicArn>T</TopicArn><Protocol>email</Protocol><SubscriptionArn>PendingConfirmation</SubscriptionArn>"+
				"<Owner>123456789012</Owner><Endpoint>me@example.org</Endpoint></member></Subscriptions><NextToken>2</NextToken>")
		default:
			result(w, action, "<Subscriptions><member><TopicArn>T</TopicArn><Protocol>sqs</Protocol><SubscriptionArn>arn:aws:sns:x:1:T:1</SubscriptionArn>"+
				"<Owner>123456789012</Owner><Endpoint>q</Endpoint></member></Subscriptions><NextToken>2</NextToken>")
		}
	})
	arn, err := a.FindTopic(t.Context(), "b")
	if err != nil || arn != "arn:aws:sns:eu-west-1:123456789012:b" {
		t.Errorf("%q, %v", arn, err)
	}
	if _, err := a.FindTopic(t.Context(), "c"); !errors.Is(err, coldstore.ErrNotFound) {
		t.Errorf("a topic that is not there: %v", err)
	}
	want := []coldstore.Subscription{{Topic: "T", Protocol: "email", Endpoint: "me@example.org", Pending: true}, {ID: "arn:aws:sns:x:1:T:1", Topic: "T", Protocol: "sqs", Endpoint: "q"}}
	for _, topic := range []string{"", "T"} {
		var got []coldstore.Subscription
		err := a.EachSubscription(t.Context(), topic, func(s coldstore.Subscription) error { got = append(got, s); return nil })
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("of topic %q: %v, %v", topic, got, err)
		}
	}
	stop := errors.New("stop")
	if err := a.EachTopic(t.Context(), func(string) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("fn's error became %v", err)
	}
}

// TestSubscribePending: until somebody confirms there is no id.
func TestSubscribePending(t *testing.T) {
	t.Parallel()
	arn := "pending confirmation"
	a := snsOf(t, func(w http.ResponseWriter, action string, _ map[string][]string) {
		result(w, action, "<SubscriptionArn>"+arn+"</SubscriptionArn>")
	})
	s, err := a.Subscribe(t.Context(), coldstore.Subscription{Topic: "T", Protocol: "email", Endpoint: "me@example.org"})
	if err != nil || !s.Pending || s.ID != "" {
		t.Errorf("%+v, %v", s, err)
	}
	arn = "arn:aws:sns:eu-west-1:123456789012:T:1"
	if s, err = a.Subscribe(t.Context(), s); err != nil || s.Pending || s.ID != arn {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestSNSErrors: what SNS says has the kinds that what the vaults' service says has.
func TestSNSErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		code   string
		kind   error
		text   string
	}{
		{404, "NotFound", coldstore.ErrNotFound, "Topic does not exist"},
		{400, "InvalidParameter", coldstore.ErrInvalid, "Topic does not exist"},
		{400, "Throttling", coldstore.ErrThrottled, ""},
		{429, "Throttled", coldstore.ErrThrottled, ""},
		{500, "InternalError", coldstore.ErrTemporary, ""},
		{403, "InvalidClientTokenId", nil, "the AWS access key is not known"},
		{403, "SignatureDoesNotMatch", nil, "the secret access key is wrong"},
		{403, "AuthorizationError", nil, "(AuthorizationError"},
		{502, "", coldstore.ErrTemporary, ""},
	} {
		a := snsOf(t, func(w http.ResponseWriter, _ string, _ map[string][]string) {
			w.WriteHeader(c.status)
			if c.code != "" {
				fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>Topic does not exist</Message></Error><RequestId>R</RequestId></ErrorResponse>`, c.code)
			}
		})
		_, err := a.EnsureTopic(t.Context(), "jobs")
		var e *awsconn.Error
		if !errors.As(err, &e) || c.kind != nil && !errors.Is(err, c.kind) || c.kind == nil && len(e.Kinds) > 0 || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%d %s: %v", c.status, c.code, err)
		}
		if uerr := a.Unsubscribe(t.Context(), "arn:aws:sns:x:1:T:1"); (uerr == nil) != (c.code == "NotFound") {
			t.Errorf("unsubscribe, %d %s: %v", c.status, c.code, uerr)
		}
	}
	a := snsOf(t, func(http.ResponseWriter, string, map[string][]string) { t.Error("a name that cannot be one was sent") })
	if _, err := a.EnsureTopic(t.Context(), "a b"); failure.KindOf(err) != failure.Usage {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.EnsureTopic(ctx, "jobs"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestRegions(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]bool{"glacier://eu-west-1": true, "glacier://eu-west-1/?profile=p": true, "glacier://eu-west-1/v": false, "dir:/x": false, "photos": false, "": false} {
		if IsRegion(url) != want {
			t.Errorf("IsRegion(%q) is %v", url, !want)
		}
	}
	if u, err := InRegion("glacier://eu-west-1?profile=p", "v"); err != nil || u != "glacier://eu-west-1/v?profile=p" {
		t.Errorf("%q, %v", u, err)
	}
	for _, c := range []struct {
		region, vault string
		want          bool
	}{
		{"glacier://eu-west-1", "glacier://eu-west-1/v", true},
		{"glacier://eu-west-1", "glacier://eu-west-1/v?account=123456789012", true},
		{"glacier://eu-west-1?account=123456789012", "glacier://eu-west-1/v?account=123456789012", true},
		{"glacier://eu-west-1?account=123456789012", "glacier://eu-west-1/v", false},
		{"glacier://eu-west-1?profile=a", "glacier://eu-west-1/v?profile=b", false},
		{"glacier://eu-west-1", "glacier://eu-west-2/v", false},
		{"glacier://eu-west-1", "dir:/x", false},
	} {
		if Within(c.region, c.vault) != c.want {
			t.Errorf("Within(%q, %q) is %v", c.region, c.vault, !c.want)
		}
	}
}
