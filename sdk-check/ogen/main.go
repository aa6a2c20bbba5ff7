// Drains a queue with the client of ogen: ogen URL QUEUE PAYLOADS.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/go-faster/jx"
	"github.com/google/uuid"

	"sdkcheck/ogen/api"
)

// done returns the body of a response that has the expected type.
func done[T any](response any, err error) T {
	if err != nil {
		panic(err)
	}
	body, ok := response.(T)
	if !ok {
		panic(fmt.Sprintf("%T: %+v", response, response))
	}
	return body
}

func check(holds bool, shown any) {
	if !holds {
		panic(fmt.Sprintf("%+v", shown))
	}
}

func main() {
	url, queue := os.Args[1], os.Args[2]
	text, err := os.ReadFile(os.Args[3])
	check(err == nil, err)
	var payloads []json.RawMessage
	check(json.Unmarshal(text, &payloads) == nil, text)
	ctx := context.Background()
	client, err := api.NewClient(url)
	check(err == nil, err)

	done[*api.ReadinessHeaders](client.GetReadiness(ctx))
	for n, payload := range payloads {
		task := &api.SubmitRequest{Queue: api.NewOptString(queue), Payload: jx.Raw(payload), Key: api.NewOptString(fmt.Sprint("key ", n))}
		done[*api.SubmitTaskCreatedHeaders](client.SubmitTask(ctx, task, api.SubmitTaskParams{}))
	}
	batch := &api.SubmitBatchRequest{Tasks: []api.SubmitBatchItem{
		{Queue: api.NewOptString(queue), Payload: jx.Raw(payloads[len(payloads)-1]), Tags: []string{"sdk"}},
		{Queue: api.NewOptString(queue), DelayMs: api.NewOptInt64(1), RunAt: api.NewOptDateTime(time.Now())},
	}}
	results := done[*api.SubmitBatchResponseHeaders](client.SubmitTasks(ctx, batch, api.SubmitTasksParams{})).Response.Results
	check(results[0].Task.Value.Tags[0] == "sdk" && results[0].Problem.Null, results)
	check(results[1].Task.Null && results[1].Problem.Value.Code == "invalid_value", results)

	completed, turn := 0, 0
	var last uuid.UUID
	for {
		claim := &api.ClaimRequest{Queues: []string{queue}, Worker: api.NewOptString("sdk"), Max: api.NewOptInt32(10), WaitMs: api.NewOptInt32(200), ClaimID: api.NewOptString(uuid.NewString())}
		tasks := done[*api.ClaimResponseHeaders](client.ClaimTasks(ctx, claim, api.ClaimTasksParams{})).Response.Tasks
		if len(tasks) == 0 {
			break
		}
		beat := &api.HeartbeatRequest{Worker: api.NewOptString("sdk")}
		for _, task := range tasks {
			beat.Tasks = append(beat.Tasks, api.HeartbeatItem{ID: task.ID, Lease: task.Lease, Progress: jx.Raw(`{"page":1}`)})
		}
		for _, held := range done[*api.HeartbeatResponseHeaders](client.HeartbeatTasks(ctx, beat)).Response.Tasks {
			check(held.Problem.Null && !held.LeaseUntil.Null, held)
		}
		for _, task := range tasks {
			turn++
			if turn == 1 {
				done[*api.ReturnedTaskHeaders](client.ReleaseTask(ctx, &api.ReleaseRequest{ID: task.ID, Lease: task.Lease}))
			} else if turn == 2 {
				failed := api.ReportedError{Message: api.NewOptString("failed once"), Details: task.Payload}
				done[*api.ReturnedTaskHeaders](client.FailTask(ctx, &api.FailRequest{ID: task.ID, Lease: task.Lease, Error: failed, RetryInMs: api.NewOptInt64(0)}))
			} else {
				done[*api.CompleteResponseHeaders](client.CompleteTask(ctx, &api.CompleteRequest{ID: task.ID, Lease: task.Lease, Result: task.Payload}))
				completed++
				last = task.ID
			}
		}
	}

	stale := &api.CompleteBatchRequest{Completions: []api.Completion{{ID: last, Lease: "stale"}}}
	check(done[*api.CompleteBatchResponseHeaders](client.CompleteTasks(ctx, stale)).Response.Results[0].Problem.Value.Code == "lease_lost", stale)
	task := done[*api.GetTaskOKHeaders](client.GetTask(ctx, api.GetTaskParams{ID: last})).Response
	check(task.State == "completed" && !task.FinishedAt.Null && string(task.Progress) == `{"page":1}`, task)
	list := done[*api.TaskListHeaders](client.ListTasks(ctx, api.ListTasksParams{Queue: queue, State: api.ListTasksStateCompleted}))
	check(len(list.Response.Tasks) == completed, list)
	counts := done[*api.QueueStateHeaders](client.GetQueue(ctx, api.GetQueueParams{Queue: queue}))
	check(counts.Response.Counts.Completed == int64(completed), counts)
	done[*api.StatsHeaders](client.GetStats(ctx, api.GetStatsParams{Queue: api.NewOptString(queue)}))
	done[*api.WorkerListHeaders](client.ListWorkers(ctx, api.ListWorkersParams{}))
	done[*api.SlotsHeaders](client.GetSlots(ctx, api.GetSlotsParams{Key: api.NewOptString("key 1")}))
	problem := done[*api.LeaseLostHeaders](client.CompleteTask(ctx, &api.CompleteRequest{ID: last, Lease: "stale"}))
	fmt.Printf("completed %d, problem %s\n", completed, problem.Response.Code)
}
