// Prints the events of a stream, as r3labs/sse gives them to a program.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/r3labs/sse/v2"
	"gopkg.in/cenkalti/backoff.v1"
)

func main() {
	client := sse.NewClient(os.Args[1])
	client.ReconnectStrategy = backoff.NewConstantBackOff(time.Second)
	listen := func(event *sse.Event) {
		name := string(event.Event)
		if name == "" || len(event.Data) == 0 {
			name = "unnamed"
		}
		fmt.Println(name, string(event.Data))
	}
	// It returns without an error when the server ends the stream. The client keeps the last id.
	for {
		if err := client.SubscribeRawWithContext(context.Background(), listen); err != nil {
			fmt.Println("closed", err)
			return
		}
		time.Sleep(time.Second)
	}
}
