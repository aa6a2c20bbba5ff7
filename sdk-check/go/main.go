// Drains a queue with the client of openapi-generator, go: drain URL QUEUE PAYLOADS.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	api "github.com/GIT_USER_ID/GIT_REPO_ID"
)

func check(holds bool, shown any) {
	if !holds {
		panic(fmt.Sprintf("%+v", shown))
	}
}

// done returns the body of a successful response.
func done[T any](body T, _ *http.Response, err error) T {
	check(err == nil, err)
	return body
}

func main() {
	url, queue := os.Args[1], os.Args[2]
	text, err := os.ReadFile(os.Args[3])
	check(err == nil, err)
	var payloads []any
	check(json.Unmarshal(text, &payloads) == nil, text)
	ctx := context.Background()
	settings := api.NewConfiguration()
	settings.Servers = api.ServerConfigurations{{URL: url}}
	client := api.NewAPIClient(settings)
	work := client.WorkAPI

	done(client.SystemAPI.GetReadiness(ctx).Execute())
	for n, payload := range payloads {
		task := api.NewSubmitRequest()
		task.SetQueue(queue)
		task.SetKey(fmt.Sprint("key ", n))
		task.SetPayload(payload)
		done(client.TasksAPI.SubmitTask(ctx).SubmitRequest(*task).Execute())
	}
	good, bad := api.NewSubmitBatchItem(), api.NewSubmitBatchItem()
	good.SetQueue(queue)
	good.SetPayload(payloads[len(payloads)-1])
	good.SetTags([]string{"sdk"})
	bad.SetDelayMs(1)
	bad.SetRunAt(time.Now())
	batch := api.NewSubmitBatchRequest([]api.SubmitBatchItem{*good, *bad})
	results := done(client.TasksAPI.SubmitTasks(ctx).SubmitBatchRequest(*batch).Execute()).Results
	check(results[0].Task.Get().Tags[0] == "sdk" && results[0].Problem.Get() == nil, results)
	check(results[1].Task.Get() == nil && results[1].Problem.Get().Code == "invalid_value", results)

	completed, turn := 0, 0
	var last string
	for {
		claim := api.NewClaimRequest()
		claim.SetQueues([]string{queue})
		claim.SetWorker("sdk")
		claim.SetMax(10)
		claim.SetWaitMs(200)
		claim.SetClaimId(fmt.Sprint("claim ", queue, turn))
		tasks := done(work.ClaimTasks(ctx).ClaimRequest(*claim).Execute()).Tasks
		if len(tasks) == 0 {
			break
		}
		var items []api.HeartbeatItem
		for _, task := range tasks {
			item := api.NewHeartbeatItem(task.Id, task.Lease)
			item.SetProgress(map[string]int{"page": 1})
			items = append(items, *item)
		}
		for _, held := range done(work.HeartbeatTasks(ctx).HeartbeatRequest(*api.NewHeartbeatRequest(items)).Execute()).Tasks {
			check(held.Problem.Get() == nil && held.LeaseUntil.Get() != nil, held)
		}
		for _, task := range tasks {
			turn++
			if turn == 1 {
				done(work.ReleaseTask(ctx).ReleaseRequest(*api.NewReleaseRequest(task.Id, task.Lease)).Execute())
			} else if turn == 2 {
				failed := api.NewReportedError()
				failed.SetMessage("failed once")
				failed.SetDetails(task.Payload)
				report := api.NewFailRequest(task.Id, task.Lease, *failed)
				report.SetRetryInMs(0)
				done(work.FailTask(ctx).FailRequest(*report).Execute())
			} else {
				report := api.NewCompleteRequest(task.Id, task.Lease)
				report.SetResult(task.Payload)
				done(work.CompleteTask(ctx).CompleteRequest(*report).Execute())
				completed++
				last = task.Id
			}
		}
	}

	stale := api.NewCompleteBatchRequest([]api.Completion{*api.NewCompletion(last, "stale")})
	check(done(work.CompleteTasks(ctx).CompleteBatchRequest(*stale).Execute()).Results[0].Problem.Get().Code == "lease_lost", stale)
	task := done(client.TasksAPI.GetTask(ctx, last).Execute())
	check(task.State == "completed" && task.FinishedAt.Get() != nil && task.Progress.(map[string]any)["page"] == 1.0, task)
	list := done(client.TasksAPI.ListTasks(ctx).Queue(queue).State("completed").Execute())
	check(len(list.Tasks) == completed, list)
	check(done(client.QueuesAPI.GetQueue(ctx, queue).Execute()).Counts.Completed == int64(completed), queue)
	done(client.SystemAPI.GetStats(ctx).Queue(queue).Execute())
	done(client.SystemAPI.ListWorkers(ctx).Execute())
	check(done(client.SystemAPI.GetSlots(ctx).Key("key 1").Execute()).KeySlot.Get() != nil, queue)
	_, _, err = work.CompleteTask(ctx).CompleteRequest(*api.NewCompleteRequest(last, "stale")).Execute()
	var failure *api.GenericOpenAPIError
	check(errors.As(err, &failure), err)
	fmt.Printf("completed %d, problem %s\n", completed, failure.Model().(api.Problem).Code)
}
