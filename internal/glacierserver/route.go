package glacierserver

import (
	"net/url"
	"regexp"
	"strings"
)

// operation is one of the API's 33.
type operation struct {
	name   string
	run    func(*request) error
	vault  bool // works on a vault that must exist
	stream bool // its body is data, and is not read before the operation
}

// route is where an operation is found, and, once matched, whose account was asked for.
type route struct {
	method  string
	path    []string // below the account; "{v}" a vault's name, "{id}" what an operation is about
	query   string   // of the parameter "operation"
	op      *operation
	account string
}

// routes is the API: a table of all its operations.
func routes() []route {
	var list []route
	add := func(method, path, query, name string, run func(*request) error) {
		segments := strings.Split(path, "/")
		list = append(list, route{
			method: method, path: segments, query: query,
			op: &operation{
				name: name, run: run,
				vault:  len(segments) > 1 && segments[1] == "{v}",
				stream: name == "UploadArchive" || name == "UploadMultipartPart",
			},
		})
	}
	const v, uploads, jobs, lock = "vaults/{v}", "vaults/{v}/multipart-uploads", "vaults/{v}/jobs", "vaults/{v}/lock-policy"
	add("GET", "vaults", "", "ListVaults", (*request).listVaults)
	add("PUT", v, "", "CreateVault", (*request).createVault)
	add("GET", v, "", "DescribeVault", (*request).describeVault)
	add("DELETE", v, "", "DeleteVault", (*request).deleteVault)
	add("POST", v+"/archives", "", "UploadArchive", (*request).uploadArchive)
	add("DELETE", v+"/archives/{id}", "", "DeleteArchive", (*request).deleteArchive)
	add("POST", uploads, "", "InitiateMultipartUpload", (*request).initiateUpload)
	add("GET", uploads, "", "ListMultipartUploads", (*request).listUploads)
	add("PUT", uploads+"/{id}", "", "UploadMultipartPart", (*request).uploadPart)
	add("GET", uploads+"/{id}", "", "ListParts", (*request).listParts)
	add("POST", uploads+"/{id}", "", "CompleteMultipartUpload", (*request).completeUpload)
	add("DELETE", uploads+"/{id}", "", "AbortMultipartUpload", (*request).abortUpload)
	add("POST", jobs, "", "InitiateJob", (*request).initiateJob)
	add("GET", jobs, "", "ListJobs", (*request).listJobs)
	add("GET", jobs+"/{id}", "", "DescribeJob", (*request).describeJob)
	add("GET", jobs+"/{id}/output", "", "GetJobOutput", (*request).getJobOutput)
	add("PUT", v+"/notification-configuration", "", "SetVaultNotifications", (*request).setNotifications)
	add("GET", v+"/notification-configuration", "", "GetVaultNotifications", (*request).getNotifications)
	add("DELETE", v+"/notification-configuration", "", "DeleteVaultNotifications", (*request).deleteNotifications)
	add("PUT", v+"/access-policy", "", "SetVaultAccessPolicy", (*request).setAccessPolicy)
	add("GET", v+"/access-policy", "", "GetVaultAccessPolicy", (*request).getAccessPolicy)
	add("DELETE", v+"/access-policy", "", "DeleteVaultAccessPolicy", (*request).deleteAccessPolicy)
	add("POST", lock, "", "InitiateVaultLock", (*request).initiateLock)
	add("GET", lock, "", "GetVaultLock", (*request).getLock)
	add("DELETE", lock, "", "AbortVaultLock", (*request).abortLock)
	add("POST", lock+"/{id}", "", "CompleteVaultLock", (*request).completeLock)
	add("GET", v+"/tags", "", "ListTagsForVault", (*request).listTags)
	add("POST", v+"/tags", "add", "AddTagsToVault", (*request).addTags)
	add("POST", v+"/tags", "remove", "RemoveTagsFromVault", (*request).removeTags)
	add("GET", "policies/data-retrieval", "", "GetDataRetrievalPolicy", (*request).getRetrievalPolicy)
	add("PUT", "policies/data-retrieval", "", "SetDataRetrievalPolicy", (*request).setRetrievalPolicy)
	add("POST", "provisioned-capacity", "", "PurchaseProvisionedCapacity", (*request).purchaseCapacity)
	add("GET", "provisioned-capacity", "", "ListProvisionedCapacity", (*request).listCapacity)
	return list
}

// Operations are the names of all that the server can do.
func Operations() []string {
	var names []string
	for _, rt := range routes() {
		names = append(names, rt.op.name)
	}
	return names
}

// route finds the operation of a request.
func (q *request) route() (*route, error) {
	path := q.r.URL.EscapedPath()
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if n := len(segments); n > 2 && segments[n-1] == "" && segments[1] != "vaults" || n > 3 && segments[n-1] == "" {
		segments = segments[:n-1] // one slash at the end does no harm
	}
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil {
			return nil, badRequest("Bad path: %s", path)
		}
		segments[i] = plain
	}
	for i := range q.routes {
		rt := q.routes[i]
		if rt.method != q.r.Method || len(rt.path)+1 != len(segments) {
			continue
		}
		if rt.query != "" && rt.query != q.r.URL.Query().Get("operation") {
			continue
		}
		if q.match(rt.path, segments[1:]) {
			rt.account = segments[0]
			return &rt, nil
		}
	}
	return nil, badRequest("Unknown operation: %s %s", q.r.Method, path)
}

func (q *request) match(pattern, segments []string) bool {
	vault, arg := "", ""
	for i, p := range pattern {
		switch {
		case p == "{v}":
			vault = segments[i]
		case p == "{id}":
			arg = segments[i]
		case p != segments[i]:
			return false
		}
	}
	q.vaultName, q.arg = vault, arg
	return true
}

func checkVaultName(name string) error {
	if !regexp.MustCompile(`^[A-Za-z0-9_.-]{1,255}$`).MatchString(name) || name == "." || name == ".." {
		return invalid("Invalid vault name: %s", name)
	}
	return nil
}
