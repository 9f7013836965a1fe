package s3glacier

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/firn-backup/firn/internal/coldstore"
)

type policyDocument struct {
	Version   string
	Statement []policyStatement
}

type policyStatement struct {
	Sid       string
	Effect    string
	Action    []string
	Resource  []string
	Condition map[string]map[string][]string `json:",omitempty"`
}

// policies are the least that machines of each kind must be allowed. No statement is wider than what this package sends.
func (s *Store) policies() []coldstore.Document {
	bucket := partition(s.region) + s.l.bucket
	objects := bucket + "/" + s.l.root() + "*"
	list := policyStatement{Sid: "List", Effect: "Allow", Action: []string{"s3:ListBucket"}, Resource: []string{bucket}}
	if root := s.l.root(); root != "" {
		list.Condition = map[string]map[string][]string{"StringLike": {"s3:prefix": {root + "*"}}}
	}
	on := func(sid, resource string, actions ...string) policyStatement {
		return policyStatement{Sid: sid, Effect: "Allow", Action: actions, Resource: []string{resource}}
	}
	uploads := on("Uploads", bucket, "s3:ListBucketMultipartUploads")
	store := on("Store", objects, "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
	if s.l.lock != "" {
		store.Action = append(store.Action, "s3:PutObjectRetention")
	}
	read := on("Read", objects, "s3:GetObject", "s3:RestoreObject")
	remove := on("Delete", objects, "s3:DeleteObject", "s3:DeleteObjectVersion")
	versions := on("Versions", bucket, "s3:ListBucketVersions")
	backup := []policyStatement{list, uploads, store}
	restore := []policyStatement{list, read}
	if s.l.kmsKey != "" || s.l.sse != "" && s.l.sse != "AES256" {
		key := s.l.kmsKey
		if !strings.HasPrefix(key, "arn:") {
			key = "*" // the key's ARN is better
		}
		backup = append(backup, on("Encrypt", key, "kms:GenerateDataKey", "kms:Decrypt"))
		restore = append(restore, on("Decrypt", key, "kms:Decrypt"))
	}
	return []coldstore.Document{
		{Name: "backup-only", For: "a machine that only backs up: it can neither read nor delete what it stored", Text: policyText(backup)},
		{Name: "restore", For: "a machine that only restores, recovers and verifies", Text: policyText(restore)},
		{Name: "delete", For: "beside one of these, a machine that prunes and deletes", Text: policyText([]policyStatement{list, uploads, versions, remove, on("Abort", objects, "s3:AbortMultipartUpload")})},
	}
}

// partition is what the ARNs of buckets begin with in a region.
func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "arn:aws-cn:s3:::"
	case strings.HasPrefix(region, "us-gov-"):
		return "arn:aws-us-gov:s3:::"
	}
	return "arn:aws:s3:::"
}

func policyText(statements []policyStatement) string {
	return jsonText(policyDocument{Version: "2012-10-17", Statement: statements})
}

func jsonText(v any) string {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Sprintf("%v", err) // cannot be: texts and lists only
	}
	return string(b)
}

// abortAfter is how long parts of an upload that nobody ends are kept, in days, by the rule that is proposed.
const abortAfter = 14

// proposal is the rule that gives up uploads that nobody ends: what they hold is charged for.
func (s *Store) proposal() coldstore.Document {
	type rule struct {
		ID                             string
		Status                         string
		Filter                         map[string]string
		AbortIncompleteMultipartUpload map[string]int
	}
	return coldstore.Document{
		Name: "lifecycle",
		For: "parts of uploads that were cut short are charged for until somebody aborts them (firn vault tidy does); this rule does. " +
			"aws s3api put-bucket-lifecycle-configuration replaces all rules: add it to those that there are",
		Text: jsonText(map[string][]rule{"Rules": {{
			ID: "firn-abort-uploads", Status: "Enabled", Filter: map[string]string{"Prefix": s.l.root()},
			AbortIncompleteMultipartUpload: map[string]int{"DaysAfterInitiation": abortAfter},
		}}}),
	}
}
