# Firn. `make test` is all that a change must pass; .ci/run calls it.

GO      ?= go
PREFIX  ?= /usr/local
BIN     ?= bin
OUT     ?= dist
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null)
DATE    := $(shell git log -1 --format=%cI 2>/dev/null)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.date=$(DATE)
FUZZTIME ?= 10s
STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build install deb test bench lint fuzz soak reader session clean

build: ## the program, as BIN/firn
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/firn ./cmd/firn

install: build ## the program, also as glacier, manual pages and completions, under PREFIX
	install -D -m 755 $(BIN)/firn $(DESTDIR)$(PREFIX)/bin/firn
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	ln -sf firn $(DESTDIR)$(PREFIX)/bin/glacier
	$(BIN)/firn man $(DESTDIR)$(PREFIX)/share/man/man1
	$(BIN)/firn completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/firn
	$(BIN)/firn completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_firn
	$(BIN)/firn completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/firn.fish

deb: ## a Debian package of it, in OUT: program, manual pages, completions, units of systemd
	@stage=$$(mktemp -d) && trap 'rm -rf "$$stage"' EXIT && \
		$(MAKE) --no-print-directory install DESTDIR=$$stage PREFIX=/usr && \
		packaging/deb.sh "$$stage" "$(VERSION)" "$(OUT)"

test: ## every test; FIRN_MUST_RUN=1 makes a skipped one fail
	$(GO) vet ./...
	$(GO) test -timeout 40m ./...

bench: ## Firn beside what it replaces, in one run; prints ratios
	$(GO) run ./test/bench $(BENCHFLAGS)

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(STATICCHECK) ./...

fuzz: ## every fuzz target for FUZZTIME
	@set -e; for dir in $$(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do \
		for target in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | cut -c6-); do \
			echo "== $$dir $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) ./$$dir; \
		done; \
	done

soak: ## the long tests: hours of kills, gigabytes, a million files
	FIRN_SOAK=1 $(GO) test -timeout 6h ./...

reader: ## the independent reader made from docs/design/format.md
	$(GO) test -count=1 ./test/reader

session: ## the session in README.md, from the real program
	docs/session.sh

clean:
	rm -rf bin
