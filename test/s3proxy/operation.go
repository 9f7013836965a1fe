package s3proxy

import (
	"net/http"
	"strings"
)

// operation names what a request asks for, as the S3 API does. Buckets are in the path.
func operation(r *http.Request) (op, bucket, key string) {
	bucket, key, _ = strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case bucket == "":
		return "ListBuckets", "", ""
	case key == "":
		return bucketOperation(r), bucket, ""
	}
	return objectOperation(r), bucket, key
}

// named finds the sub-resource that a request is for.
func named(r *http.Request, names map[string]string, otherwise string) string {
	q := r.URL.Query()
	for parameter, op := range names {
		if q.Has(parameter) {
			return op
		}
	}
	return otherwise
}

func bucketOperation(r *http.Request) string {
	switch r.Method {
	case http.MethodHead:
		return "HeadBucket"
	case http.MethodPost:
		return named(r, map[string]string{"delete": "DeleteObjects"}, "PostObject")
	case http.MethodDelete:
		return named(r, map[string]string{"lifecycle": "DeleteBucketLifecycle", "policy": "DeleteBucketPolicy"}, "DeleteBucket")
	case http.MethodPut:
		return named(r, map[string]string{
			"lifecycle": "PutBucketLifecycleConfiguration", "versioning": "PutBucketVersioning", "object-lock": "PutObjectLockConfiguration",
			"policy": "PutBucketPolicy", "tagging": "PutBucketTagging", "encryption": "PutBucketEncryption",
			"notification": "PutBucketNotificationConfiguration",
		}, "CreateBucket")
	}
	return named(r, map[string]string{
		"list-type": "ListObjectsV2", "location": "GetBucketLocation", "versioning": "GetBucketVersioning",
		"lifecycle": "GetBucketLifecycleConfiguration", "object-lock": "GetObjectLockConfiguration", "uploads": "ListMultipartUploads",
		"versions": "ListObjectVersions", "policy": "GetBucketPolicy", "tagging": "GetBucketTagging", "encryption": "GetBucketEncryption",
		"requestPayment": "GetBucketRequestPayment", "notification": "GetBucketNotificationConfiguration",
		"intelligent-tiering": "GetBucketIntelligentTieringConfiguration",
	}, "ListObjects")
}

func objectOperation(r *http.Request) string {
	switch r.Method {
	case http.MethodHead:
		return "HeadObject"
	case http.MethodPost:
		return named(r, map[string]string{"uploads": "CreateMultipartUpload", "uploadId": "CompleteMultipartUpload", "restore": "RestoreObject"}, "PostObject")
	case http.MethodDelete:
		return named(r, map[string]string{"uploadId": "AbortMultipartUpload", "tagging": "DeleteObjectTagging"}, "DeleteObject")
	case http.MethodPut:
		copies := r.Header.Get("X-Amz-Copy-Source") != ""
		switch {
		case r.URL.Query().Has("uploadId") && copies:
			return "UploadPartCopy"
		case copies:
			return "CopyObject"
		}
		return named(r, map[string]string{
			"uploadId": "UploadPart", "tagging": "PutObjectTagging", "retention": "PutObjectRetention", "legal-hold": "PutObjectLegalHold",
		}, "PutObject")
	}
	return named(r, map[string]string{
		"uploadId": "ListParts", "attributes": "GetObjectAttributes", "tagging": "GetObjectTagging",
		"retention": "GetObjectRetention", "legal-hold": "GetObjectLegalHold",
	}, "GetObject")
}

// permissions are the IAM actions that a request needs, after the table "Actions defined by Amazon S3".
func permissions(op string, r *http.Request) []string {
	versioned := ""
	if r.URL.Query().Has("versionId") {
		versioned = "Version"
	}
	var also []string
	if op == "PutObject" || op == "CreateMultipartUpload" {
		for header, action := range map[string]string{
			"X-Amz-Tagging": "s3:PutObjectTagging", "X-Amz-Acl": "s3:PutObjectAcl",
			"X-Amz-Object-Lock-Mode": "s3:PutObjectRetention", "X-Amz-Object-Lock-Legal-Hold": "s3:PutObjectLegalHold",
		} {
			if r.Header.Get(header) != "" {
				also = append(also, action)
			}
		}
		if r.Header.Get("If-Match") != "" {
			also = append(also, "s3:GetObject")
		}
	}
	switch op {
	case "HeadObject", "GetObject":
		return []string{"s3:GetObject" + versioned}
	case "GetObjectAttributes":
		return []string{"s3:GetObject" + versioned, "s3:GetObject" + versioned + "Attributes"}
	case "PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload":
		return append(also, "s3:PutObject")
	case "CopyObject", "UploadPartCopy":
		return []string{"s3:PutObject", "s3:GetObject"}
	case "ListParts":
		return []string{"s3:ListMultipartUploadParts"}
	case "ListMultipartUploads":
		return []string{"s3:ListBucketMultipartUploads"}
	case "ListObjectsV2", "ListObjects", "HeadBucket":
		return []string{"s3:ListBucket"}
	case "ListObjectVersions":
		return []string{"s3:ListBucketVersions"}
	case "DeleteObject", "DeleteObjects":
		return []string{"s3:DeleteObject" + versioned}
	case "GetBucketLifecycleConfiguration":
		return []string{"s3:GetLifecycleConfiguration"}
	case "PutBucketLifecycleConfiguration", "DeleteBucketLifecycle":
		return []string{"s3:PutLifecycleConfiguration"}
	case "GetObjectLockConfiguration":
		return []string{"s3:GetBucketObjectLockConfiguration"}
	case "PutObjectLockConfiguration":
		return []string{"s3:PutBucketObjectLockConfiguration"}
	case "GetBucketEncryption":
		return []string{"s3:GetEncryptionConfiguration"}
	case "ListBuckets":
		return []string{"s3:ListAllMyBuckets"}
	}
	return []string{"s3:" + op}
}

// ofBucket says whether an action is allowed on a bucket, and not on its objects.
func ofBucket(action string) bool {
	for _, s := range []string{"Bucket", "LifecycleConfiguration", "EncryptionConfiguration"} {
		if strings.Contains(action, s) {
			return true
		}
	}
	return false
}
