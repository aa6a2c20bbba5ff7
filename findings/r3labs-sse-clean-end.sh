#!/usr/bin/env bash
# The Go client r3labs/sse does not connect again after a stream that the server has ended cleanly, and reports no error.
#
# Seen with github.com/r3labs/sse/v2 v2.10.0. `Subscribe` returns nil when the response ends as HTTP says that it may. After
# a response that breaks off, it connects again. The specification of event streams has a client connect again in both
# cases, and a guess would be that it does. So a server that stops in order loses its listeners, and one that is killed
# keeps them. r3labs/sse#147 describes it.
#
# Output seen: "requests after a clean end: 1, error: <nil>; after a broken one: 2 or more".
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
go version
cat > go.mod << 'END'
module probe

go 1.24

require (
	github.com/r3labs/sse/v2 v2.10.0
	gopkg.in/cenkalti/backoff.v1 v1.1.0
)

require golang.org/x/net v0.0.0-20191116160921-f9c825593386
END
cat > main.go << 'END'
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"time"

	"github.com/r3labs/sse/v2"
)

// requests counts the requests of a client within three seconds. Each stream ends after one event.
func requests(breaks bool) (int32, error) {
	var count atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		count.Add(1)
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: one\n\n")
		w.(http.Flusher).Flush()
		if breaks {
			panic(http.ErrAbortHandler)
		}
	}))
	defer server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- sse.NewClient(server.URL).SubscribeRawWithContext(ctx, func(*sse.Event) {}) }()
	select {
	case err := <-ended:
		return count.Load(), err
	case <-ctx.Done():
		return count.Load(), nil
	}
}

func main() {
	clean, err := requests(false)
	broken, _ := requests(true)
	fmt.Printf("requests after a clean end: %d, error: %v; after a broken one: %d\n", clean, err, broken)
	if clean != 1 || err != nil || broken < 2 {
		fmt.Fprintln(os.Stderr, "r3labs/sse behaves differently now")
		os.Exit(1)
	}
}
END
GOFLAGS=-mod=mod go run .
