/* A libnvidia-ml.so.1 that says what the file named by FAKE_NVML_STATE says, read at every call.
 * Lines of that file: "gpu NAME", "uuid TEXT", "energy_mj N", "power_mw N", "used N", "clock_mhz N",
 * "drawing_w N" (the energy grows by that, in steps of 20 ms; absent: it stands),
 * "instant_mw N" (absent: not supported), "reasons N", "usual_mhz N", "max_mhz N", "processes N",
 * "violation P N" (nanoseconds of policy P; absent: not supported), "fail FUNCTION CODE" (that call
 * returns the code), "hang FUNCTION". What changes the device is added to the file named by
 * FAKE_NVML_CALLS, a line for each call.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SUCCESS 0
#define NOT_SUPPORTED 3
#define INVALID_ARGUMENT 2
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define POWER_INSTANT 186
#define TICK_MS 20

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned long long reference_us, violation_ns; } Violation;
typedef struct {
    unsigned field, scope;
    long long at_us, latency_us;
    unsigned kind, status;
    union { unsigned whole; unsigned long long room; } value;
} Field;
typedef struct { unsigned pid; unsigned long long used; unsigned instance, compute; } Process;

static char state[8][2][96];

static void read_state(const char *wanted, char *value, size_t size) {
    const char *path = getenv("FAKE_NVML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[256];
    value[0] = 0;
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        size_t length = strlen(wanted);
        if (!strncmp(line, wanted, length) && line[length] == ' ')
            snprintf(value, size, "%s", line + length + 1);
    }
    if (file) fclose(file);
}

static int injected(const char *function) {
    char key[128], value[96];
    snprintf(key, sizeof key, "hang %s", function);
    read_state(key, value, sizeof value);
    if (value[0]) sleep(600);
    snprintf(key, sizeof key, "fail %s", function);
    read_state(key, value, sizeof value);
    return value[0] ? atoi(value) : SUCCESS;
}

#define ASK(name) do { int code = injected(name); if (code) return code; } while (0)

static int number(const char *key, unsigned long long *value) {
    char text[96];
    read_state(key, text, sizeof text);
    *value = strtoull(text, NULL, 10);
    return SUCCESS;
}

int nvmlInit_v2(void) { ASK("nvmlInit"); return SUCCESS; }
int nvmlInitWithFlags(unsigned flags) { (void)flags; ASK("nvmlInit"); return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
    switch (code) {
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case 10: return "Timeout";
    case 12: return "Shared Library Not Found";
    case 15: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    char name[96];
    ASK("nvmlDeviceGetCount");
    read_state("gpu", name, sizeof name);
    *count = name[0] ? 1 : 0;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    ASK("nvmlDeviceGetHandleByIndex");
    *handle = state;
    return index ? INVALID_ARGUMENT : SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    char ours[96];
    ASK("nvmlDeviceGetHandleByUUID");
    read_state("uuid", ours, sizeof ours);
    *handle = state;
    return strcmp(uuid, ours) ? NOT_FOUND : SUCCESS;
}

int nvmlDeviceGetName(void *handle, char *name, unsigned size) {
    (void)handle;
    ASK("nvmlDeviceGetName");
    read_state("gpu", name, size);
    return SUCCESS;
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned size) {
    (void)handle;
    read_state("uuid", uuid, size);
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *energy) {
    (void)handle;
    ASK("nvmlDeviceGetTotalEnergyConsumption");
    unsigned long long watts;
    struct timespec now;
    number("energy_mj", energy);
    number("drawing_w", &watts);
    clock_gettime(CLOCK_MONOTONIC, &now);
    *energy += watts * TICK_MS * ((now.tv_sec * 1000ULL + now.tv_nsec / 1000000) / TICK_MS);
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *power) {
    unsigned long long value;
    (void)handle;
    ASK("nvmlDeviceGetPowerUsage");
    number("power_mw", &value);
    *power = (unsigned)value;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *handle, Memory *memory) {
    (void)handle;
    ASK("nvmlDeviceGetMemoryInfo");
    memory->total = 80000000000ULL;
    number("used", &memory->used);
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetClockInfo(void *handle, int kind, unsigned *clock) {
    unsigned long long value;
    (void)handle;
    (void)kind;
    ASK("nvmlDeviceGetClockInfo");
    number("clock_mhz", &value);
    *clock = (unsigned)value;
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *reasons) {
    (void)handle;
    ASK("nvmlDeviceGetCurrentClocksThrottleReasons");
    return number("reasons", reasons);
}

int nvmlDeviceGetMaxClockInfo(void *handle, int kind, unsigned *clock) {
    unsigned long long value;
    (void)handle;
    (void)kind;
    ASK("nvmlDeviceGetMaxClockInfo");
    number("max_mhz", &value);
    *clock = (unsigned)value;
    return SUCCESS;
}

int nvmlDeviceGetDefaultApplicationsClock(void *handle, int kind, unsigned *clock) {
    unsigned long long value;
    (void)handle;
    (void)kind;
    ASK("nvmlDeviceGetDefaultApplicationsClock");
    number("usual_mhz", &value);
    *clock = (unsigned)value;
    return value ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetFieldValues(void *handle, int count, Field *fields) {
    char text[96];
    (void)handle;
    ASK("nvmlDeviceGetFieldValues");
    read_state("instant_mw", text, sizeof text);
    for (int place = 0; place < count; place++) {
        int known = fields[place].field == POWER_INSTANT && text[0];
        fields[place].status = known ? SUCCESS : NOT_SUPPORTED;
        fields[place].value.whole = (unsigned)strtoul(text, NULL, 10);
    }
    return SUCCESS;
}

int nvmlDeviceGetViolationStatus(void *handle, int policy, Violation *violation) {
    char key[32], text[96];
    (void)handle;
    ASK("nvmlDeviceGetViolationStatus");
    snprintf(key, sizeof key, "violation %d", policy);
    read_state(key, text, sizeof text);
    violation->violation_ns = strtoull(text, NULL, 10);
    return text[0] ? SUCCESS : NOT_SUPPORTED;
}

static int processes(unsigned *count, Process *found) {
    unsigned long long here;
    number("processes", &here);
    if (!here || (found && *count >= here)) {
        for (unsigned place = 0; place < here; place++) found[place].pid = 100 + place;
        *count = (unsigned)here;
        return SUCCESS;
    }
    *count = (unsigned)here;
    return INSUFFICIENT_SIZE;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, Process *found) {
    (void)handle;
    ASK("nvmlDeviceGetComputeRunningProcesses");
    return processes(count, found);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, Process *found) {
    (void)handle;
    (void)found;
    ASK("nvmlDeviceGetGraphicsRunningProcesses");
    *count = 0;
    return SUCCESS;
}

static void note(const char *call, unsigned least, unsigned most) {
    const char *path = getenv("FAKE_NVML_CALLS");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (!file) return;
    fprintf(file, "%s %u %u\n", call, least, most);
    fclose(file);
}

int nvmlDeviceSetGpuLockedClocks(void *handle, unsigned least, unsigned most) {
    (void)handle;
    ASK("nvmlDeviceSetGpuLockedClocks");
    note("lock", least, most);
    return SUCCESS;
}

int nvmlDeviceResetGpuLockedClocks(void *handle) {
    (void)handle;
    ASK("nvmlDeviceResetGpuLockedClocks");
    note("unlock", 0, 0);
    return SUCCESS;
}
