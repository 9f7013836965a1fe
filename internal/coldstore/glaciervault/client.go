package glaciervault

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/glacier"

	"github.com/firn-backup/firn/internal/coldstore/awsconn"
)

// testSeam replaces what tests cannot have from outside.
type testSeam struct {
	load   []func(*config.LoadOptions) error
	client func(*glacier.Options)
}

func openAccount(ctx context.Context, l location, o Options, t *testSeam) (*Account, error) {
	from := awsconn.Options{Region: l.region, Profile: l.profile, Notice: o.Notice}
	if t != nil {
		from.Load = t.load
	}
	cfg, err := awsconn.Load(ctx, from)
	if err != nil {
		return nil, fmt.Errorf("read the AWS configuration for %s: %w", l, err)
	}
	c := glacier.NewFromConfig(cfg, func(g *glacier.Options) {
		g.Retryer = aws.NopRetryer{} // package transfer retries
		if l.endpoint != "" {
			g.BaseEndpoint = &l.endpoint
		}
		if t != nil && t.client != nil {
			t.client(g)
		}
	})
	id := l.account
	if id == "" {
		id = "-"
	}
	return &Account{c: c, cfg: cfg, id: id, o: o}, nil
}
