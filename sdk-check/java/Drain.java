// Drains a queue with the client of openapi-generator, java: Drain URL QUEUE PAYLOADS.

import com.google.gson.reflect.TypeToken;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.OffsetDateTime;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.JSON;
import org.openapitools.client.api.QueuesApi;
import org.openapitools.client.api.SystemApi;
import org.openapitools.client.api.TasksApi;
import org.openapitools.client.api.WorkApi;
import org.openapitools.client.model.*;

public class Drain {
    static void check(boolean holds, Object shown) {
        if (!holds) {
            throw new AssertionError(shown);
        }
    }

    public static void main(String[] args) throws Exception {
        String queue = args[1];
        ApiClient client = new ApiClient().setBasePath(args[0]);
        TasksApi tasks = new TasksApi(client);
        WorkApi work = new WorkApi(client);
        SystemApi system = new SystemApi(client);
        List<Object> payloads = JSON.deserialize(Files.readString(Path.of(args[2])), new TypeToken<List<Object>>() {}.getType());

        system.getReadiness();
        for (int n = 0; n < payloads.size(); n++) {
            tasks.submitTask(new SubmitRequest().queue(queue).key("key " + n).payload(payloads.get(n)), null, null, null);
        }
        SubmitBatchRequest batch = new SubmitBatchRequest()
            .addTasksItem(new SubmitBatchItem().queue(queue).payload(payloads.get(payloads.size() - 1)).addTagsItem("sdk"))
            .addTasksItem(new SubmitBatchItem().queue(queue).delayMs(1L).runAt(OffsetDateTime.now()));
        List<SubmitResult> results = tasks.submitTasks(batch, null, null).getResults();
        check(results.get(0).getTask().getTags().get(0).equals("sdk") && results.get(0).getProblem() == null, results);
        check(results.get(1).getTask() == null && results.get(1).getProblem().getCode().equals("invalid_value"), results);

        int completed = 0;
        int turn = 0;
        UUID last = null;
        while (true) {
            ClaimRequest claim = new ClaimRequest().addQueuesItem(queue).worker("sdk").max(10).waitMs(200);
            List<ClaimedTask> claimed = work.claimTasks(claim.claimId(UUID.randomUUID().toString()), null).getTasks();
            if (claimed.isEmpty()) {
                break;
            }
            HeartbeatRequest beat = new HeartbeatRequest().worker("sdk");
            for (ClaimedTask task : claimed) {
                beat.addTasksItem(new HeartbeatItem().id(task.getId()).lease(task.getLease()).progress(Map.of("page", 1)));
            }
            for (HeartbeatResult held : work.heartbeatTasks(beat).getTasks()) {
                check(held.getProblem() == null && held.getLeaseUntil() != null, held);
            }
            for (ClaimedTask task : claimed) {
                turn++;
                if (turn == 1) {
                    work.releaseTask(new ReleaseRequest().id(task.getId()).lease(task.getLease()));
                } else if (turn == 2) {
                    ReportedError error = new ReportedError().message("failed once").details(task.getPayload());
                    work.failTask(new FailRequest().id(task.getId()).lease(task.getLease()).error(error).retryInMs(0L));
                } else {
                    work.completeTask(new CompleteRequest().id(task.getId()).lease(task.getLease()).result(task.getPayload()));
                    completed++;
                    last = task.getId();
                }
            }
        }

        CompleteBatchRequest stale = new CompleteBatchRequest().addCompletionsItem(new Completion().id(last).lease("stale"));
        check(work.completeTasks(stale).getResults().get(0).getProblem().getCode().equals("lease_lost"), stale);
        Task task = tasks.getTask(last, null, null);
        check(task.getState().equals("completed") && task.getFinishedAt() != null && task.getProgress() != null, task);
        check(tasks.listTasks(queue, "completed", null, null, null).getTasks().size() == completed, queue);
        check(new QueuesApi(client).getQueue(queue).getCounts().getCompleted() == completed, queue);
        system.getStats(queue, null, null);
        system.listWorkers(null, null);
        check(system.getSlots("key 1").getKeySlot() != null, queue);
        try {
            work.completeTask(new CompleteRequest().id(last).lease("stale"));
        } catch (ApiException error) {
            Problem problem = Problem.fromJson(error.getResponseBody());
            System.out.println("completed " + completed + ", problem " + problem.getCode());
        }
    }
}
