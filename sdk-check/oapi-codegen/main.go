// Drains a queue with the client of oapi-codegen: drain URL QUEUE PAYLOADS.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"

	"sdkcheck/oapi-codegen/api"
)

func check(holds bool, shown any) {
	if !holds {
		panic(fmt.Sprintf("%+v", shown))
	}
}

// done returns a response whose body was read.
func done[T any](response *T, err error) *T {
	check(err == nil, err)
	return response
}

func to[T any](value T) *T { return &value }

func main() {
	url, queue := os.Args[1], os.Args[2]
	text, err := os.ReadFile(os.Args[3])
	check(err == nil, err)
	var payloads []any
	check(json.Unmarshal(text, &payloads) == nil, text)
	ctx := context.Background()
	client, err := api.NewClientWithResponses(url)
	check(err == nil, err)

	check(done(client.GetReadinessWithResponse(ctx)).JSON200 != nil, url)
	for n, payload := range payloads {
		task := api.SubmitRequest{Queue: &queue, Key: to(fmt.Sprint("key ", n)), Payload: payload}
		check(done(client.SubmitTaskWithResponse(ctx, nil, task)).JSON201 != nil, task)
	}
	batch := api.SubmitBatchRequest{Tasks: []api.SubmitBatchItem{
		{Queue: &queue, Payload: payloads[len(payloads)-1], Tags: &[]string{"sdk"}},
		{Queue: &queue, DelayMs: to(int64(1)), RunAt: to(time.Now())},
	}}
	results := done(client.SubmitTasksWithResponse(ctx, nil, batch)).JSON200.Results
	check(results[0].Task.Tags[0] == "sdk" && results[0].Problem == nil, results)
	check(results[1].Task == nil && results[1].Problem.Code == "invalid_value", results)

	completed, turn := 0, 0
	var last uuid.UUID
	for {
		claim := api.ClaimRequest{Queues: &[]string{queue}, Worker: to("sdk"), Max: to(int32(10)), WaitMs: to(int32(200)), ClaimId: to(uuid.NewString())}
		tasks := done(client.ClaimTasksWithResponse(ctx, nil, claim)).JSON200.Tasks
		if len(tasks) == 0 {
			break
		}
		beat := api.HeartbeatRequest{Worker: to("sdk")}
		for _, task := range tasks {
			beat.Tasks = append(beat.Tasks, api.HeartbeatItem{Id: task.Id, Lease: task.Lease, Progress: map[string]int{"page": 1}})
		}
		for _, held := range done(client.HeartbeatTasksWithResponse(ctx, beat)).JSON200.Tasks {
			check(held.Problem == nil && held.LeaseUntil != nil, held)
		}
		for _, task := range tasks {
			turn++
			if turn == 1 {
				check(done(client.ReleaseTaskWithResponse(ctx, api.ReleaseRequest{Id: task.Id, Lease: task.Lease})).JSON200 != nil, task)
			} else if turn == 2 {
				failed := api.ReportedError{Message: to("failed once"), Details: task.Payload}
				report := api.FailRequest{Id: task.Id, Lease: task.Lease, Error: failed, RetryInMs: to(int64(0))}
				check(done(client.FailTaskWithResponse(ctx, report)).JSON200 != nil, task)
			} else {
				report := api.CompleteRequest{Id: task.Id, Lease: task.Lease, Result: task.Payload}
				check(done(client.CompleteTaskWithResponse(ctx, report)).JSON200 != nil, task)
				completed++
				last = task.Id
			}
		}
	}

	stale := api.CompleteBatchRequest{Completions: []api.Completion{{Id: last, Lease: "stale"}}}
	check(done(client.CompleteTasksWithResponse(ctx, stale)).JSON200.Results[0].Problem.Code == "lease_lost", stale)
	task := done(client.GetTaskWithResponse(ctx, last, nil)).JSON200
	check(task.State == "completed" && task.FinishedAt != nil && task.Progress.(map[string]any)["page"] == 1.0, task)
	list := done(client.ListTasksWithResponse(ctx, &api.ListTasksParams{Queue: queue, State: "completed"}))
	check(len(list.JSON200.Tasks) == completed, list)
	check(done(client.GetQueueWithResponse(ctx, queue)).JSON200.Counts.Completed == int64(completed), queue)
	check(done(client.GetStatsWithResponse(ctx, &api.GetStatsParams{Queue: &queue})).JSON200 != nil, queue)
	check(done(client.ListWorkersWithResponse(ctx, nil)).JSON200 != nil, queue)
	check(done(client.GetSlotsWithResponse(ctx, &api.GetSlotsParams{Key: to("key 1")})).JSON200.KeySlot != nil, queue)
	problem := done(client.CompleteTaskWithResponse(ctx, api.CompleteRequest{Id: last, Lease: "stale"})).ApplicationproblemJSON409
	fmt.Printf("completed %d, problem %s\n", completed, problem.Code)
}
