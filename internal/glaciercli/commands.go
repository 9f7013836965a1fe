package glaciercli

// commands are all that there are, of glacier-cli and of its fork.
func commands() []command {
	flag := func(long, help string) option { return option{long: long, help: help} }
	number := func(long, value, help string) option {
		return option{long: long, value: value, number: true, help: help}
	}
	vault := argument{name: "vault", help: "name of the vault"}
	name := argument{name: "name", help: "name of the archive; id:ID, or name:NAME"}
	names := argument{name: "name", many: true, help: "names of archives; id:ID, or name:NAME"}
	dir := argument{name: "directory", help: "the directory of the files"}
	wait := flag("--wait", "wait until the vault is ready, instead of exiting with 75")
	return []command{
		{"vault", "list", parser{about: "List the vaults."}, vaultList},
		{"vault", "create", parser{about: "Make a vault.", arguments: []argument{{name: "name", help: "name of the vault"}}}, vaultCreate},
		{"vault", "sync", parser{about: "Take the vault's inventory into the catalog.", arguments: []argument{vault}, options: []option{
			wait, flag("--fix", "accept what the inventory says"),
			number("--max-age", "MAX_AGE_HOURS", "use an inventory that was finished so many hours ago at most (default 24)"),
		}}, vaultSync},
		{"vault", "reconcile", parser{about: "Compare a vault with a directory, and make it the same.", arguments: []argument{vault, dir}, options: []option{
			flag("--commit", "do it, instead of saying what would be done"),
		}}, vaultReconcile},
		{"archive", "list", parser{about: "List the archives that are known.", arguments: []argument{vault}, options: []option{
			flag("--force-ids", "print ids for all"), flag("--with-hash", "print tree hashes too"),
		}}, archiveList},
		{"archive", "upload", parser{about: "Store a file.", arguments: []argument{vault, {name: "file", help: "the file; - is the standard input"}}, options: []option{
			{long: "--name", value: "NAME", help: "what to call it (default: as the file)"},
		}}, archiveUpload},
		{"archive", "retrieve", parser{about: "Get archives back.", arguments: []argument{vault, names}, options: []option{
			wait, {short: "-o", value: "OUTPUT_FILENAME", help: "the file to write; - is the standard output"},
			number("--multipart-size", "MULTIPART_SIZE", "has no effect: the sizes of requests are chosen"),
		}}, archiveRetrieve},
		{"archive", "delete", parser{about: "Delete an archive.", arguments: []argument{vault, name}}, archiveDelete},
		{"archive", "checkpresent", parser{about: "Print the name of an archive if it is there.", arguments: []argument{vault, name}, options: []option{
			wait, flag("--quiet", "say nothing on stderr where the answer is known"),
			number("--max-age", "MAX_AGE_HOURS", "how old knowledge may be (default 60)"),
		}}, archiveCheckpresent},
		{"archive", "multi-upload", parser{about: "Store all files of a directory.", arguments: []argument{vault, dir}, options: []option{
			flag("--resume", "leave out what is stored already"),
		}}, archiveMultiUpload},
		{"archive", "multi-delete", parser{about: "Delete archives.", arguments: []argument{vault, names}}, archiveMultiDelete},
		{"job", "list", parser{about: "List the jobs of all vaults."}, jobList},
	}
}
