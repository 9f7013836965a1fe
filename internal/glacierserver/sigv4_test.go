package glacierserver

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const (
	guideKey    = "AKIAIOSFODNN7EXAMPLE"
	guideSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

// The two examples of the Glacier Developer Guide, "Signing Requests". The guide prints the second one's path
// without its end; the signature is that of the path as the operation has it.
func TestGuideVectors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method, path, date, body, signature string
		headers                             []string
	}{
		{"PUT", "/-/vaults/examplevault", "20120525T002453Z", "", "3ce5b2f2fffac9262b4da9256f8d086b4aaf42eba5f111c21681a65a127b7c2a",
			[]string{"host", "x-amz-date", "x-amz-glacier-version"}},
		{"POST", "/-/vaults/examplevault/archives", "20120507T000000Z", "Welcome to Amazon Glacier.", "b092397439375d59119072764a1e9a144677c43d9906fd98a5742c57a2855de6",
			[]string{"host", "x-amz-content-sha256", "x-amz-date", "x-amz-glacier-version"}},
	} {
		at, err := time.Parse(isoTime, c.date)
		if err != nil {
			t.Fatal(err)
		}
		for _, spaced := range []bool{true, false} {
			now := at.Add(10 * time.Minute)
			s := server(t, Options{Keys: []Key{{Profile: "guide", ID: guideKey, Secret: guideSecret}}, WallTime: func() time.Time { return now }})
			send := func() *httptest.ResponseRecorder {
				r := httptest.NewRequest(c.method, "http://glacier.us-east-1.amazonaws.com"+c.path, strings.NewReader(c.body))
				r.Header.Set("X-Amz-Date", c.date)
				r.Header.Set("X-Amz-Glacier-Version", "2012-06-01")
				if c.body != "" {
					r.Header.Set("X-Amz-Content-Sha256", hexSum([]byte(c.body)))
					r.Header.Set("X-Amz-Sha256-Tree-Hash", hexSum([]byte(c.body)))
				}
				sep := ","
				if spaced {
					sep = ", "
				}
				r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+guideKey+"/"+c.date[:8]+"/us-east-1/glacier/aws4_request"+sep+
					"SignedHeaders="+strings.Join(c.headers, ";")+sep+"Signature="+c.signature)
				w := httptest.NewRecorder()
				s.ServeHTTP(w, r)
				return w
			}
			want := http.StatusCreated
			if c.method == "POST" {
				want = http.StatusNotFound // accepted; there is no such vault
			}
			if w := send(); w.Code != want {
				t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
			}
			for _, skew := range []time.Duration{-time.Hour, time.Hour} {
				now = at.Add(skew)
				if w := send(); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "InvalidSignatureException") {
					t.Errorf("%s off: %d %s", skew, w.Code, w.Body)
				}
			}
		}
	}
}

func TestParseAuthorization(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "Basic abc", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=x",
		"AWS4-HMAC-SHA256 Credential=k/20260101/r/glacier/aws4_request, SignedHeaders=host",
	} {
		if _, err := parseAuthorization(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	a, err := parseAuthorization("AWS4-HMAC-SHA256 Signature=s,SignedHeaders=a;b,Credential=k/x/20260101/r/glacier/aws4_request")
	if err != nil || a.key != "k/x" || a.region != "r" || len(a.signed) != 2 || a.signature != "s" {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestCanonicalQuery(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"":                            "",
		"b=2&a=1":                     "a=1&b=2",
		"limit":                       "limit=",
		"marker=arn%3aaws:x%2fy+z&&a": "a=&marker=arn%3Aaws%3Ax%2Fy%2Bz",
		"a=%zz":                       "a=%25zz",
	} {
		if got := canonicalQuery(raw); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
}

func TestParseKeys(t *testing.T) {
	t.Parallel()
	keys, err := parseKeys("# c\n[default]\naws_access_key_id=A\naws_secret_access_key = s=/+ \n; c\n\n[ other ]\nregion = x\naws_access_key_id = B\naws_secret_access_key=t\naws_session_token=u\n")
	if err != nil || len(keys) != 2 || keys[0] != (Key{"default", "A", "s=/+", ""}) || keys[1] != (Key{"other", "B", "t", "u"}) {
		t.Errorf("%+v, %v", keys, err)
	}
	for _, text := range []string{"", "a=b", "[x]", "[x", "[x]\nSECRET", "[x]\naws_access_key_id=A\naws_secret_access_key=s\n[y]\naws_access_key_id=A\naws_secret_access_key=s"} {
		if _, err := parseKeys(text); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func server(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Root == "" {
		o.Root = t.TempDir()
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
