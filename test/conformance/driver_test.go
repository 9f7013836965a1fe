package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/glacier"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// question is one line from the suite in Python: an operation of the SDK and its input.
type question struct {
	Op    string          `json:"op"`
	Input json.RawMessage `json:"input"`
	Body  string          `json:"body"`  // file with the payload
	Out   string          `json:"out"`   // file for the answer's
	Pages bool            `json:"pages"` // by the SDK's paginator
	Wait  string          `json:"wait"`  // by the SDK's waiter
}

type reply struct {
	Output  any    `json:"output"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	Status  int    `json:"status"`
	Error   string `json:"error,omitempty"`
}

// drive lets the suite in Python ask by the AWS SDK for Go: lines of JSON in and out.
func drive(ctx context.Context, url string) error {
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	c := glacier.NewFromConfig(cfg, func(o *glacier.Options) { o.BaseEndpoint = &url })
	in := bufio.NewReader(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var q question
		if err := json.Unmarshal(line, &q); err != nil {
			return err
		}
		r := reply{}
		r.Output, err = do(ctx, c, &q)
		var api smithy.APIError
		var resp *smithyhttp.ResponseError
		switch {
		case errors.As(err, &api):
			r.Code, r.Message = api.ErrorCode(), api.ErrorMessage()
			if errors.As(err, &resp) {
				r.Status = resp.HTTPStatusCode()
			}
		case err != nil:
			r.Error = err.Error()
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
}

func do(ctx context.Context, c *glacier.Client, q *question) (any, error) {
	switch {
	case q.Wait == "vault_exists":
		var in glacier.DescribeVaultInput
		if err := json.Unmarshal(q.Input, &in); err != nil {
			return nil, err
		}
		return nil, glacier.NewVaultExistsWaiter(c).Wait(ctx, &in, time.Minute)
	case q.Wait != "":
		var in glacier.DescribeVaultInput
		if err := json.Unmarshal(q.Input, &in); err != nil {
			return nil, err
		}
		return nil, glacier.NewVaultNotExistsWaiter(c).Wait(ctx, &in, time.Minute)
	case q.Pages:
		return pages(ctx, c, q)
	}
	m := reflect.ValueOf(c).MethodByName(q.Op)
	if !m.IsValid() {
		return nil, fmt.Errorf("the SDK has no operation %s", q.Op)
	}
	in := reflect.New(m.Type().In(1).Elem())
	if err := json.Unmarshal(q.Input, in.Interface()); err != nil {
		return nil, err
	}
	args := []reflect.Value{reflect.ValueOf(ctx), in}
	if q.Body != "" {
		body, err := os.ReadFile(q.Body)
		if err != nil {
			return nil, err
		}
		in.Elem().FieldByName("Body").Set(reflect.ValueOf(bytes.NewReader(body)))
		if !in.Elem().FieldByName("Checksum").IsNil() {
			// The SDK then leaves the hash of the payload to the caller, too.
			header := smithyhttp.SetHeaderValue("X-Amz-Content-Sha256", sha(string(body)))
			args = append(args, reflect.ValueOf(func(o *glacier.Options) { o.APIOptions = append(o.APIOptions, header) }))
		}
	}
	got := m.Call(args)
	if err, _ := got[1].Interface().(error); err != nil {
		return nil, err
	}
	out := got[0].Elem()
	if q.Out != "" {
		body := out.FieldByName("Body")
		data, err := io.ReadAll(body.Interface().(io.ReadCloser))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(q.Out, data, 0o600); err != nil {
			return nil, err
		}
		body.SetZero()
	}
	return fields(out), nil
}

// fields are those of an output, without the SDK's own.
func fields(v reflect.Value) map[string]any {
	m := map[string]any{}
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.IsExported() && f.Name != "ResultMetadata" {
			m[f.Name] = v.Field(i).Interface()
		}
	}
	return m
}

// pages are all pages that the SDK's paginator gives.
func pages(ctx context.Context, c *glacier.Client, q *question) (any, error) {
	var all []map[string]any
	add := func(out any, err error) error {
		if err == nil {
			all = append(all, fields(reflect.ValueOf(out).Elem()))
		}
		return err
	}
	var more func() bool
	var next func() error
	var err error
	switch strings.TrimPrefix(q.Op, "List") {
	case "Vaults":
		var in glacier.ListVaultsInput
		err = json.Unmarshal(q.Input, &in)
		p := glacier.NewListVaultsPaginator(c, &in)
		more, next = p.HasMorePages, func() error { return add(p.NextPage(ctx)) }
	case "Jobs":
		var in glacier.ListJobsInput
		err = json.Unmarshal(q.Input, &in)
		p := glacier.NewListJobsPaginator(c, &in)
		more, next = p.HasMorePages, func() error { return add(p.NextPage(ctx)) }
	case "Parts":
		var in glacier.ListPartsInput
		err = json.Unmarshal(q.Input, &in)
		p := glacier.NewListPartsPaginator(c, &in)
		more, next = p.HasMorePages, func() error { return add(p.NextPage(ctx)) }
	case "MultipartUploads":
		var in glacier.ListMultipartUploadsInput
		err = json.Unmarshal(q.Input, &in)
		p := glacier.NewListMultipartUploadsPaginator(c, &in)
		more, next = p.HasMorePages, func() error { return add(p.NextPage(ctx)) }
	}
	for err == nil && more() {
		err = next()
	}
	return all, err
}
